"""The rows of an engine: how they wait, what was drawn for them, and what they have become.

Left out: when each of them computes, which is `engine`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from offapi.completions import Finish, Sampling
from offapi.engine import Guarded, NewToken, StartMatcher, ranked
from offapi.episodes import Floats
from offapi.randomness import uniforms

from .cache import Prefix


@dataclass(eq=False)
class Row:
    """A completion that waits, decodes or has finished."""

    number: int
    prompt: tuple[int, ...]
    sampling: Sampling
    kind: Sampling  # equal, and the same object, for all rows that `choose` can draw together
    key: int
    sample: int
    adapter: str | None
    start: StartMatcher | None
    keep: bool
    used: int = 0  # uniforms that the row used before its prompt was extended
    follows: bool = True  # whether its slot follows the shared prefix
    length: int = 0  # columns filled in its slot
    version: int = 0  # of the weights that compute it
    drawn: int = 0  # tokens drawn on the device, at most `ahead` of which are not read yet
    most: int = 0  # tokens that may be drawn
    matcher: Guarded | None = None
    in_step: bool = False  # its tokens are read before its next step
    cancelled: bool = False
    uniforms_T: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    # the ids that truncation or the matcher left at each token
    left_T: list[NDArray[np.int32]] = field(default_factory=list)
    signals_T2: list[tuple[float, float]] = field(default_factory=list)
    top_T: list[tuple[tuple[int, float], ...]] = field(default_factory=list)  # likeliest tokens
    finish: Finish | None = None

    def begin(self, length: int, follows: bool, version: int, saved: bool) -> None:
        """Take a slot whose first `length` columns hold the prompt.

        `saved` is whether its keys and values are to stay after its last token.
        """
        s, self.length, self.follows, self.version = self.sampling, length, follows, version
        self.most = s.max_tokens
        self.matcher = Guarded.start(self.start, self.sample) if self.start else None
        self.in_step = self.matcher is not None or saved
        count = self.used + s.max_tokens
        self.uniforms_T = uniforms(s.seed, s.step, self.key, self.sample, count)[self.used :]

    @property
    def computed(self) -> tuple[int, ...]:
        """The tokens whose keys and values a finished row has: all but the last."""
        return (*self.prompt, *self.tokens[:-1])

    @property
    def masked(self) -> bool:
        """Whether it says which tokens could be drawn."""
        bounded = self.matcher is not None and self.kind.temperature > 0
        return bounded or self.kind.truncated

    def new_token(self, index: int) -> NewToken:
        """Return its token at `index` as the engine hands it out."""
        last = index == len(self.tokens) - 1
        return NewToken(
            self.number,
            self.tokens[index],
            self.logprobs[index],
            self.finish if last else None,
            self.left_T[index] if self.left_T else None,
            self.signals_T2[index] if self.signals_T2 else None,
            self.top_T[index] if self.top_T else None,
        )


@dataclass(eq=False)
class WaitingPrompt:
    """Rows that wait with the same prompt and adapter."""

    tokens: tuple[int, ...]
    adapter: str | None
    rows: deque[Row]
    known: Prefix | None = None  # keys and values of its first tokens, where they were kept


@dataclass(eq=False)
class Ready:
    """A prefilled prompt some of whose rows still wait for slots."""

    rows: deque[Row]
    own: Prefix  # keys and values of the prompt, after the shared prefix if it follows that
    logits_V: mx.array  # at its last token
    follows: bool


@dataclass(frozen=True, eq=False)
class Draw:
    """One step's tokens and logprobs of R slots, with what else rows ask for of each token.

    They have not been read from the device.
    """

    rows: list[Row | None]
    tokens_R: mx.array
    logprobs_R: mx.array
    left_RV: mx.array | None
    signals_R2: mx.array | None
    top: tuple[mx.array, mx.array] | None  # the likeliest tokens and their free logprobs, (R, K)

    @property
    def awaited(self) -> bool:
        """Whether a row still needs its token."""
        return any(row and not (row.finish or row.cancelled) for row in self.rows)

    @property
    def arrays(self) -> list[mx.array]:
        """What the device has to compute."""
        drawn = (self.tokens_R, self.logprobs_R, self.left_RV, self.signals_R2, *(self.top or ()))
        return [array for array in drawn if array is not None]

    def read(self) -> Iterator[Row]:
        """Give every row that still runs its token, and yield the row."""
        left_RV = None if self.left_RV is None else np.array(self.left_RV)
        signals = None if self.signals_R2 is None else np.array(self.signals_R2).tolist()
        top = self.top and ranked(*(np.array(part).tolist() for part in self.top))
        tokens, logprobs = np.array(self.tokens_R).tolist(), np.array(self.logprobs_R).tolist()
        drawn = zip(self.rows, tokens, logprobs, strict=True)
        for slot, (row, token, logprob) in enumerate(drawn):
            if row is None or row.finish or row.cancelled:
                continue
            row.tokens.append(token)
            row.logprobs.append(logprob)
            if row.matcher is not None:
                row.matcher.accept(token)
            if left_RV is not None and row.masked:
                row.left_T.append(np.flatnonzero(left_RV[slot]).astype(np.int32))
            if signals is not None and row.sampling.signals:
                row.signals_T2.append(tuple(signals[slot]))
            if top and row.sampling.top_logprobs:
                row.top_T.append(top[slot][: row.sampling.top_logprobs])
            row.finish = row.sampling.finish(row.tokens)
            yield row
