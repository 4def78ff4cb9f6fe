"""What both engines do with rows: made from requests, drawn from logits, dropped when they fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

import mlx.core as mx
import numpy as np

from offapi.completions import Sampling
from offapi.engine import Kinds, RowError, RowRequest
from offapi.episodes import check_tokens

from .lora import Adapters
from .matching import Allowed
from .policy import Policy
from .rows import Draw, Row, WaitingPrompt
from .sampling import draw, likeliest, signals


def check_request(request: RowRequest, policy: Policy, adapters: Adapters) -> None:
    """Raise ValueError for an empty prompt, an unknown token or an unknown adapter."""
    if not request.tokens:
        raise ValueError("a prompt must have at least one token, got an empty one")
    check_tokens(request.tokens, policy.vocabulary, "a prompt")
    if request.adapter not in adapters.numbers:
        raise ValueError(f"the engine has no adapter {request.adapter!r}")
    policy.check_length(len(request.tokens) + request.sampling.max_tokens)


def new_row(number: int, request: RowRequest, kinds: Kinds) -> Row:
    """Return the row that a request asks for."""
    return Row(
        number,
        request.tokens,
        request.sampling,
        kinds.of(replace(request.sampling, signals=False, top_logprobs=0)),
        request.key,
        request.sample,
        request.adapter,
        request.start,
        request.keep,
    )


def extension(before: Row, tokens: Sequence[int], sampling: Sampling, kinds: Kinds) -> Row:
    """Return the row that continues `before`, a finished one, after `tokens`."""
    prompt = (*before.prompt, *before.tokens, *map(int, tokens))
    request = RowRequest(prompt, sampling, before.key, before.sample, before.adapter, keep=True)
    used = before.used + len(before.tokens)
    return replace(new_row(before.number, request, kinds), used=used)


def by_prompt(rows: Iterable[Row]) -> list[WaitingPrompt]:
    """Return neighbouring rows of one prompt and adapter together, the longest prompts first.

    Prompts of similar length need the least padding, and columns are reserved once.
    """
    alike = groupby(rows, key=lambda row: (row.prompt, row.adapter))
    prompts = [WaitingPrompt(tokens, name, deque(group)) for (tokens, name), group in alike]
    return sorted(prompts, key=lambda prompt: -len(prompt.tokens))


def draw_rows(rows: list[Row | None], logits_RV: mx.array) -> Draw:
    """Draw the next token of each row from its logits, without reading anything back."""
    numbers = [row.uniforms_T[row.drawn] if row else 0.0 for row in rows]
    uniforms_R = mx.array(np.array(numbers, np.float32))
    allowed = Allowed.of([row.matcher if row else None for row in rows], logits_RV.shape[-1])
    kinds = [row.kind if row else None for row in rows]
    tokens_R, logprobs_R, left_RV = draw(logits_RV, kinds, uniforms_R, allowed)
    asked = any(row and row.sampling.signals for row in rows)
    signals_R2 = signals(logits_RV, tokens_R) if asked else None
    most = max((row.sampling.top_logprobs for row in rows if row), default=0)
    top = likeliest(logits_RV, most) if most else None
    for row in filter(None, rows):
        row.drawn += 1
    return Draw(rows, tokens_R, logprobs_R, left_RV, signals_R2, top)


def failures(rows: Iterable[Row | None]) -> list[RowError]:
    """Return the errors of rows whose matchers have failed, one for each row."""
    errors = {
        row.number: row.matcher.error for row in rows if row and row.matcher and row.matcher.error
    }
    return [RowError(number, error) for number, error in errors.items()]
