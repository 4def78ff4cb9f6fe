"""The engine below rollouts, answers and chats: rows that join, decode and end.

A row is one completion in progress. Rows of any sampling, length limit, stop ids, adapter and
constraint decode side by side, one token per row and step, and a row's tokens never depend on its
neighbours. Left out: text, which is `offapi.chat`'s, and grammars, which are `offapi.constrain`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from offapi.completions import Finish, Sampling

Words = NDArray[np.int32]  # a bit for each token of the vocabulary, least significant first


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
    """Ask each row's matcher what it may say next, (R, ceil(V / 32)); without one, anything.

    Raise ValueError for a matcher that allows nothing: its row can neither continue nor end.
    """
    words_RW = np.full((len(matchers), -(-vocabulary // 32)), -1, np.int32)
    for matcher, words_W in zip(matchers, words_RW, strict=True):
        if matcher is not None:
            matcher.fill(words_W)
    if not words_RW.any(axis=1).all():
        raise ValueError("a matcher must allow at least one token, got one that allows none")
    return words_RW


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
    the likeliest other token's, in nats.
    """

    row: int
    token: int
    logprob: float  # nats, under the distribution that was sampled from
    finish: Finish | None = None  # why this was the row's last token
    allowed: NDArray[np.int32] | None = None  # ids that truncation or the matcher left to draw from
    signals: tuple[float, float] | None = None


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
        """Drop a row, waiting, live or finished; its slot is free for the next step."""
        ...

    @property
    def idle(self) -> bool:
        """Whether no row waits or decodes."""
        ...

    def close(self) -> None:
        """Drop all rows and kept prefixes."""
        ...
