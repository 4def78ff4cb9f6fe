"""The rows of an engine: how they wait, what was drawn for them, and what they have become.

Left out: when each of them computes, which is `engine`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offapi.completions import Finish, Sampling
from offapi.engine import Guarded, NewToken, RowRequest, ranked
from offapi.prefix_tree import PrefixKey, Tokens
from offapi.randomness import uniforms

from .matching import Allowed
from .sampling import Drawn, choose


@dataclass(eq=False)
class Row:
    """A completion that waits, decodes or has finished."""

    number: int
    request: RowRequest
    prompt: Tokens  # what was given before `tokens`
    sampling: Sampling
    kind: Sampling  # the same object for rows that are drawn together
    matcher: Guarded | None = None
    used: int = 0  # uniforms that were drawn before the prompt was extended
    follows: bool = False  # whether its slot continues the shared prefix
    own: int = 0  # prompt tokens in its slot
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None
    uniforms: list[float] = field(default_factory=list)  # one for each of max_tokens
    key: PrefixKey = PrefixKey(None, 0)  # whose keys and values its slot holds
    kept: tuple[PrefixKey, Tokens] | None = None  # what the engine's tree holds for it

    def begin(self, start: int, key: PrefixKey) -> None:
        """Take a slot that holds the prompt after its first `start` tokens, computed by `key`."""
        s, request, self.key = self.sampling, self.request, key
        self.follows, self.own = start > 0, len(self.prompt) - start
        count = self.used + s.max_tokens
        uniforms_T = uniforms(s.seed, s.step, request.key, request.sample, count)
        self.uniforms = uniforms_T[self.used :].tolist()
        if request.start is not None and not self.used:
            self.matcher = Guarded.start(request.start, request.sample)

    def continue_after(self, tokens: Sequence[int], sampling: Sampling, kind: Sampling) -> None:
        """Wait again, with what was drawn and the given `tokens` as the prompt."""
        self.prompt = (*self.prompt, *self.tokens, *map(int, tokens))
        self.used += len(self.tokens)
        self.sampling, self.kind = sampling, kind
        self.tokens, self.finish, self.matcher = [], None, None

    @property
    def filled(self) -> int:
        """The keys in its slot: all but those of the shared prefix and the last token."""
        return self.own + len(self.tokens) - 1

    @property
    def uniform(self) -> float:
        """The uniform that draws the next token."""
        return self.uniforms[len(self.tokens)]

    @property
    def masked(self) -> bool:
        """Whether its tokens come with the ids that could be drawn."""
        bound = self.matcher is not None and self.sampling.temperature > 0
        return bound or self.sampling.truncated

    def append(self, token: int) -> None:
        """Take over a token that was drawn."""
        self.tokens.append(token)
        if self.matcher is not None:
            self.matcher.accept(token)
        self.finish = self.sampling.finish(self.tokens)


@dataclass(eq=False)
class WaitingPrompt:
    """Rows that wait with the same prompt and adapter."""

    tokens: Tokens
    adapter: str | None
    rows: list[Row]

    @property
    def most(self) -> int:
        """The tokens of its longest row at the end."""
        return len(self.tokens) + max(row.sampling.max_tokens for row in self.rows)


def draw(logits_RV: Tensor, rows: Sequence[Row]) -> list[NewToken]:
    """Draw a token for each row, those of one kind together, and append it to the row."""
    kinds = dict.fromkeys(id(row.kind) for row in rows)
    if len(kinds) == 1:
        return append(rows, _choose(logits_RV, rows))
    drawn = []
    for kind in kinds:
        places = [place for place, row in enumerate(rows) if id(row.kind) == kind]
        places_K = torch.tensor(places, device=logits_RV.device)
        alike = [rows[place] for place in places]
        drawn += append(alike, _choose(logits_RV.index_select(0, places_K), alike))
    return drawn


def _choose(logits_RV: Tensor, rows: Sequence[Row]) -> Drawn:
    uniforms_R = torch.tensor([row.uniform for row in rows], device=logits_RV.device)
    allowed = Allowed.of([row.matcher for row in rows], logits_RV.shape[1])
    return choose(logits_RV, rows[0].sampling, uniforms_R, allowed)


def append(rows: Sequence[Row], drawn: Drawn) -> list[NewToken]:
    """Give every row its token, and return them as the engine hands them out."""
    tokens, logprobs = drawn.tokens_R.tolist(), drawn.logprobs_R.tolist()
    for row, token in zip(rows, tokens, strict=True):
        row.append(token)
    each = zip(rows, tokens, logprobs, strict=True)
    if all(part is None for part in drawn[2:]):
        return [NewToken(row.number, token, logprob, row.finish) for row, token, logprob in each]
    left = _left(rows, drawn.left_RV)
    none = [None] * len(rows)
    signals = none if drawn.signals_R2 is None else map(tuple, drawn.signals_R2.tolist())
    top = none if drawn.top is None else ranked(*(part.tolist() for part in drawn.top))
    more = zip(each, left, signals, top, strict=True)
    return [
        NewToken(row.number, token, logprob, row.finish, ids, pair, likeliest)
        for (row, token, logprob), ids, pair, likeliest in more
    ]


def _left(
    rows: Sequence[Row], left_RV: Tensor | None
) -> Iterator[NDArray[np.int32] | None] | list[None]:
    """Return the ids that each row could draw, None for a row that is not masked."""
    if left_RV is None:
        return [None] * len(rows)
    counts, ids = left_RV.sum(-1).tolist(), left_RV.nonzero()[:, 1].int().cpu()
    parts = zip(rows, torch.split(ids, counts), strict=True)
    return (part.numpy().copy() if row.masked else None for row, part in parts)
