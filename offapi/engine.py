"""The engine below rollouts, answers and chats: rows that join, decode and end.

A row is one completion in progress. Rows of any sampling, length limit, stop ids, adapter and
constraint decode side by side, one token per row and step, and a row's tokens never depend on its
neighbours. Left out: text, which is `offapi.chat`'s, and grammars, which are `offapi.constrain`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from offapi.completions import Completion, Finish, Sampling
from offapi.episodes import SamplingMask

Words = NDArray[np.int32]  # a bit for each token of the vocabulary, least significant first
KINDS = 256  # distributions that an engine knows at a time


class Matcher(Protocol):
    """What one row may say next. It is asked before each token and given each token drawn."""

    def fill(self, words: Words) -> bool:
        """Write which tokens are allowed, stop tokens included, into `words` (ceil(V / 32),).

        Return False, and write nothing, where every token is.
        """
        ...

    def accept(self, token: int) -> None:
        """Take `token`, which was allowed, as drawn."""
        ...

    @property
    def rank(self) -> int:
        """Which allowed token greedy sampling takes here: 0 is the likeliest, 1 the next.

        Where fewer are allowed, it is the least likely of them.
        """
        ...


# sample -> the matcher of that completion of a prompt; None: that completion is free
StartMatcher = Callable[[int], Matcher | None]


def allowed_words(matchers: Sequence[Matcher | None], vocabulary: int) -> Words:
    """Ask each row's matcher what it may say next, (R, ceil(V / 32)); without one, anything."""
    words_RW = np.full((len(matchers), -(-vocabulary // 32)), -1, np.int32)
    for matcher, words_W in zip(matchers, words_RW, strict=True):
        if matcher is not None:
            matcher.fill(words_W)
    return words_RW


class RowError(Exception):
    """The matcher of `row` failed with `cause`; it was dropped, and no other row was."""

    def __init__(self, row: int, cause: Exception) -> None:
        super().__init__(f"the matcher of row {row} failed: {cause}")
        self.row, self.cause = row, cause


class Guarded:
    """A matcher of one row whose first error is kept, so that a step is completed for all rows.

    After the error anything is allowed: the engine drops the row before it hands out a token.
    """

    def __init__(self, matcher: Matcher | None, error: Exception | None = None) -> None:
        self.matcher, self.error = matcher, error

    @classmethod
    def start(cls, start: StartMatcher, sample: int) -> Guarded | None:
        """Return the guarded matcher of `sample`, or None where it is free."""
        try:
            matcher = start(sample)
        except Exception as error:
            return cls(None, error)
        return None if matcher is None else cls(matcher)

    def fill(self, words: Words) -> bool:
        """See `Matcher.fill`. A matcher that allows nothing has failed: its row could not end."""
        if self.error is None and self.matcher is not None:
            try:
                bounded = self.matcher.fill(words)
                if words.any():
                    return bounded
                raise ValueError(
                    "a matcher must allow at least one token, got one that allows none"
                )
            except Exception as error:
                self.error = error
                words[:] = -1
        return False

    def accept(self, token: int) -> None:
        """See `Matcher.accept`."""
        if self.error is None and self.matcher is not None:
            try:
                self.matcher.accept(token)
            except Exception as error:
                self.error = error

    @property
    def rank(self) -> int:
        """See `Matcher.rank`."""
        if self.error is None and self.matcher is not None:
            try:
                return self.matcher.rank
            except Exception as error:
                self.error = error
        return 0


class Kinds:
    """What decides the distributions of rows: mostly the same object for equal ones.

    At most KINDS are remembered. Rows of one distribution that have different objects are drawn
    apart, which costs time alone.
    """

    def __init__(self) -> None:
        self.known: dict[Sampling, Sampling] = {}

    def of(self, sampling: Sampling) -> Sampling:
        """Return `sampling` without limit, stops and random stream."""
        kind = replace(sampling, max_tokens=1, stop_ids=(), seed=0, step=0)
        if kind not in self.known and len(self.known) >= KINDS:
            self.known.clear()
        return self.known.setdefault(kind, kind)


def ranked(
    ids: Sequence[Sequence[int]], logprobs: Sequence[Sequence[float]]
) -> list[tuple[tuple[int, float], ...]]:
    """Return each row's tokens with their logprobs, likeliest first, equally likely ones by id."""
    pairs = [list(zip(*row, strict=True)) for row in zip(ids, logprobs, strict=True)]
    return [tuple(sorted(row, key=lambda pair: (-pair[1], pair[0]))) for row in pairs]


def check_new(name: str, taken: Container[str | None]) -> None:
    """Raise ValueError for the name of a further adapter that another one has."""
    if name in taken:
        raise ValueError(f"the engine has an adapter {name!r} already")


@dataclass(frozen=True)
class RowRequest:
    """A row to decode: its prompt, how to sample it, and what bounds it.

    `key` and `sample` name the row in the random stream (`offapi.randomness.uniforms`). `adapter`
    names one of the engine's adapters; None is the policy as it was loaded. With `keep`, the row's
    keys and values stay after its last token, until `cancel`, so that `extend` reads nothing again.
    """

    tokens: tuple[int, ...]
    sampling: Sampling
    key: int = 0
    sample: int = 0
    adapter: str | None = None
    start: StartMatcher | None = None
    keep: bool = False


class NewToken(NamedTuple):
    """One new token of a row.

    `signals` are, if the sampling asks for them, the token's logprob under the model's own
    distribution (temperature 1, no constraint, no truncation) and its margin: that logprob less
    the likeliest other token's, in nats. `top` are, as many as the sampling asks for, the likeliest
    tokens with their logprobs under that distribution, likeliest first.
    """

    row: int
    token: int
    logprob: float  # nats, under the distribution that was sampled from
    finish: Finish | None = None  # why this was the row's last token
    allowed: NDArray[np.int32] | None = None  # ids that truncation or the matcher left to draw from
    signals: tuple[float, float] | None = None
    top: tuple[tuple[int, float], ...] | None = None


def completion_of(tokens: Sequence[NewToken]) -> Completion:
    """Return all tokens of a finished row as its completion."""
    finish = tokens[-1].finish
    assert finish is not None
    allowed = [token.allowed for token in tokens if token.allowed is not None]
    mask = SamplingMask.of_positions(allowed) if allowed else None
    drawn = tuple(token.token for token in tokens)
    logprobs = tuple(token.logprob for token in tokens)
    done = Completion(drawn, logprobs, finish, mask)
    signals = [token.signals for token in tokens if token.signals is not None]
    if not signals:
        return done
    free_logprobs, margins = zip(*signals, strict=True)
    return replace(done, free_logprobs=free_logprobs, margins=margins)


class Engine(Protocol):
    """One model's rows in progress. Rows are named by the numbers that `insert` returns."""

    def insert(self, requests: Sequence[RowRequest]) -> list[int]:
        """Let new rows wait for free slots, and return their numbers.

        Raise ValueError for an empty prompt, an unknown token or an unknown adapter.
        """
        ...

    def add_adapter(self, name: str, folder: Path | None) -> None:
        """Let rows have the adapter of a further PEFT folder by `name`; None is the base alone.

        Rows in progress are not disturbed. Raise ValueError for a name that is taken,
        ModelError for a folder that is damaged or does not fit the model.
        """
        ...

    def step(self) -> list[NewToken]:
        """Admit waiting rows, decode one token for every live row, and return what was drawn.

        Admitting a row draws its first token, so it may have two in its first step. A device that
        computes ahead may return a token one step later. Empty when `idle`.

        Raise RowError for a row whose matcher failed, one a call. That row alone is dropped; what
        the others drew comes with the next call that raises nothing. After any other error, `close`
        the engine: it can then be used again.
        """
        ...

    def extend(self, row: int, tokens: Sequence[int], sampling: Sampling) -> None:
        """Continue a finished row that was kept, after the given `tokens`.

        The row continues its own random stream after the uniforms it has used, is kept again, and
        is free: its matcher has ended. Only its last token and the given ones are computed. Raise
        ValueError for an unknown token, or a row that is unknown, not finished or not kept.
        """
        ...

    def cancel(self, row: int) -> None:
        """Drop a row, waiting, live or finished; its slot is free for the next step.

        None of its tokens is returned any more. A number that is unknown, or was dropped, is none.
        """
        ...

    @property
    def idle(self) -> bool:
        """Whether no row waits or decodes."""
        ...

    def close(self) -> None:
        """Drop all rows and kept prefixes."""
        ...
