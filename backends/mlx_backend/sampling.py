"""From logits to tokens: temperature, truncation, and the inverse CDF of the core's uniform."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import TypeAlias

import mlx.core as mx

from offapi.completions import Sampling

from .linux_cpu.fast_exp import exp_below, log_sum_exp
from .matching import Allowed

# tokens (R,), their logprobs (R,), and the sampling mask (R, V) if truncated or bounded
Drawn: TypeAlias = tuple[mx.array, mx.array, mx.array | None]


def draw(
    logits_RV: mx.array,
    kinds: Sequence[Sampling | None],
    uniforms_R: mx.array,
    allowed: Allowed | None = None,
) -> Drawn:
    """Draw as `choose` does, each row by its own kind of sampling; None is drawn by any.

    Rows of one kind have the same object.
    """
    first = next(kind for kind in kinds if kind is not None)
    if all(kind is first or kind is None for kind in kinds):
        return choose(logits_RV, first, uniforms_R, allowed)
    slots: dict[int, list[int]] = {}
    for slot, kind in enumerate(kinds):
        if kind is not None:
            slots.setdefault(id(kind), []).append(slot)
    free = [slot for slot, kind in enumerate(kinds) if kind is None]
    parts, order = [], []
    for members in slots.values():
        kind = kinds[members[0]]
        assert kind is not None
        taken, free = members + free, []
        rows = mx.array(taken)
        some = None if allowed is None else allowed.of_rows(taken)
        parts.append(choose(logits_RV[rows], kind, uniforms_R[rows], some))
        order += taken
    return _in_order(parts, mx.argsort(mx.array(order)))


def _in_order(parts: Sequence[Drawn], back_R: mx.array) -> Drawn:
    """Join what was drawn by kind, and take it in the order of the slots."""
    tokens, logprobs, left = (list(part) for part in zip(*parts, strict=True))
    tokens_R, logprobs_R = mx.concatenate(tokens)[back_R], mx.concatenate(logprobs)[back_R]
    widths = [left_KV.shape[1] for left_KV in left if left_KV is not None]
    if not widths:
        return tokens_R, logprobs_R, None
    filled = [
        mx.zeros((len(tokens_K), widths[0]), mx.bool_) if left_KV is None else left_KV
        for tokens_K, left_KV in zip(tokens, left, strict=True)
    ]
    return tokens_R, logprobs_R, mx.concatenate(filled)[back_R]


def choose(
    logits_RV: mx.array, sampling: Sampling, uniforms_R: mx.array, allowed: Allowed | None = None
) -> Drawn:
    """Draw a token for each row of fp32 logits, and return it with its behaviour logprob (nats).

    What is not `allowed` is forbidden first. At a temperature above 0 the token is the first one
    left, in vocabulary order, at which the cumulative probability exceeds the uniform. At
    temperature 0 it is the largest logit, or that of the row's rank, with its logprob at
    temperature 1. The third value says which tokens could be drawn (bool), if the sampling is
    truncated or bounded.
    """
    if allowed is not None:
        logits_RV = allowed.forbid(logits_RV)
    if sampling.temperature > 0:
        logits_RV = truncate(logits_RV / sampling.temperature, sampling)
    top_R1 = logits_RV.max(axis=-1, keepdims=True)
    weights_RV = exp_below(logits_RV, top_R1)
    if sampling.temperature > 0:
        tokens_R = first_beyond(mx.cumsum(weights_RV, axis=-1), weights_RV > 0, uniforms_R)
    else:
        tokens_R = mx.argmax(logits_RV, axis=-1)
        if allowed is not None:
            tokens_R = allowed.take_ranks(logits_RV, tokens_R)
    chosen_R1 = mx.take_along_axis(logits_RV, tokens_R[:, None], axis=-1)
    logprobs_R1 = chosen_R1 - top_R1 - mx.log(weights_RV.sum(axis=-1, keepdims=True))
    bounded = allowed is not None and sampling.temperature > 0
    left_RV = logits_RV > -mx.inf if sampling.truncated or bounded else None
    return tokens_R.astype(mx.int32), logprobs_R1[:, 0], left_RV


def signals(logits_RV: mx.array, tokens_R: mx.array) -> mx.array:
    """Return each token's logprob under the raw logits, and its margin, shape (R, 2), in nats.

    The margin is that logprob less the likeliest other token's.
    """
    tokens_R1 = tokens_R[:, None]
    chosen_R1 = mx.take_along_axis(logits_RV, tokens_R1, axis=-1)
    is_token_RV = mx.arange(logits_RV.shape[-1]) == tokens_R1
    others_R1 = mx.where(is_token_RV, -mx.inf, logits_RV).max(axis=-1, keepdims=True)
    free_R1 = chosen_R1 - log_sum_exp(logits_RV)
    return mx.concatenate([free_R1, chosen_R1 - others_R1], axis=-1)


def likeliest(logits_RV: mx.array, count: int) -> tuple[mx.array, mx.array]:
    """Return the `count` likeliest tokens and their logprobs under the raw logits, (R, K)."""
    count = min(count, logits_RV.shape[-1])
    ids_RK = mx.argpartition(-logits_RV, kth=count - 1, axis=-1)[:, :count]
    return ids_RK, mx.take_along_axis(logits_RV, ids_RK, axis=-1) - log_sum_exp(logits_RV)


def first_beyond(reached_RV: mx.array, possible_RV: mx.array, uniforms_R: mx.array) -> mx.array:
    """Return the first possible token (R,) whose cumulative weight exceeds its uniform's share.

    A parallel sum is rounded block by block: it can fall where nothing is added. So uniforms are
    scaled by the sum reached, and no token of weight 0 is drawn.
    """
    size = reached_RV.shape[-1]
    places_V = mx.arange(size)
    last_R = mx.where(possible_RV, places_V, 0).max(axis=-1)
    beyond_RV = mx.logical_and(possible_RV, reached_RV > uniforms_R[:, None] * reached_RV[:, -1:])
    return mx.minimum(mx.where(beyond_RV, places_V, size).min(axis=-1), last_R)


def truncate(logits_RV: mx.array, sampling: Sampling) -> mx.array:
    """Set what top_k, then top_p, then min_p cut away to -inf."""
    size = logits_RV.shape[-1]
    if 0 < sampling.top_k < size:
        edge_R1 = mx.topk(logits_RV, sampling.top_k, axis=-1).min(axis=-1, keepdims=True)
        logits_RV = mx.where(logits_RV >= edge_R1, logits_RV, -mx.inf)
    if sampling.top_p < 1.0:
        logits_RV = mx.where(_nucleus(logits_RV, sampling), logits_RV, -mx.inf)
    if sampling.min_p > 0.0:
        below_RV = logits_RV - logits_RV.max(axis=-1, keepdims=True)
        logits_RV = mx.where(below_RV >= log(sampling.min_p), logits_RV, -mx.inf)
    return logits_RV


def _nucleus(logits_RV: mx.array, sampling: Sampling) -> mx.array:
    """Return which tokens stay (R, V): the first, by logit and then id, that reach top_p.

    Weights are whole numbers of 2^-40, so that their sums are exact; 2^58 holds those of 2^18.
    """
    size = logits_RV.shape[-1]
    count = min(sampling.top_k or size, size)
    largest_RK = mx.topk(logits_RV, count, axis=-1) if count < size else logits_RV
    ranked_RK = -mx.sort(-largest_RK, axis=-1)
    weights_RK = (exp_below(ranked_RK, ranked_RK[:, :1]) * 2.0**40).astype(mx.int64)
    reached_RK, last_R1 = mx.cumsum(weights_RK, axis=-1), weights_RK[:, -1:]
    sum_R1, parts = reached_RK[:, -1:], sampling.nucleus_parts
    # Ties that top_k kept beyond its count weigh as much as the last of the ranked.
    more_R1 = (logits_RV > -mx.inf).sum(axis=-1, keepdims=True) - count
    total_R1 = sum_R1 + mx.maximum(more_R1, 0) * last_R1
    enough_R1 = ((total_R1 >> 28) * parts >> 2) + ((total_R1 & (2**28 - 1)) * parts >> 30)
    count_R1 = (reached_RK - weights_RK < enough_R1).sum(axis=-1, keepdims=True)
    edge_R1 = mx.take_along_axis(ranked_RK, count_R1 - 1, axis=-1)
    beyond_R1 = mx.maximum(enough_R1 - sum_R1 + last_R1 - 1, 0) // mx.maximum(last_R1, 1)
    above_RV, tied_RV = logits_RV > edge_R1, logits_RV == edge_R1
    room_R1 = count_R1 + beyond_R1 - above_RV.sum(axis=-1, keepdims=True)
    earlier_RV = mx.cumsum(tied_RV.astype(mx.int32), axis=-1) <= room_R1
    return mx.logical_or(above_RV, mx.logical_and(tied_RV, earlier_RV))
