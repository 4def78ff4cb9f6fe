"""From logits to tokens: temperature, truncation, and the inverse CDF of the core's uniform.

All ties at a threshold are kept, so the sampling mask does not depend on how a sort breaks them.
"""

from __future__ import annotations

from typing import TypeAlias

import mlx.core as mx

from offapi.completions import Sampling

from .linux_cpu.fast_exp import exp_below

# tokens (R,), their logprobs (R,), and the sampling mask (R, V) if truncated
Drawn: TypeAlias = tuple[mx.array, mx.array, mx.array | None]


def choose(logits_RV: mx.array, sampling: Sampling, uniforms_R: mx.array) -> Drawn:
    """Draw a token for each row of fp32 logits, and return it with its behaviour logprob (nats).

    At a temperature above 0 it is the first token left, in vocabulary order, at which the
    cumulative probability exceeds the uniform. At temperature 0 it is the largest logit, with its
    logprob at temperature 1. The third value says which tokens could be drawn (bool), if the
    sampling is truncated.
    """
    if sampling.temperature > 0:
        logits_RV = truncate(logits_RV / sampling.temperature, sampling)
    top_R1 = logits_RV.max(axis=-1, keepdims=True)
    weights_RV = exp_below(logits_RV, top_R1)
    if sampling.temperature > 0:
        tokens_R = first_beyond(mx.cumsum(weights_RV, axis=-1), weights_RV > 0, uniforms_R)
    else:
        tokens_R = mx.argmax(logits_RV, axis=-1)
    chosen_R1 = mx.take_along_axis(logits_RV, tokens_R[:, None], axis=-1)
    logprobs_R1 = chosen_R1 - top_R1 - mx.log(weights_RV.sum(axis=-1, keepdims=True))
    left_RV = logits_RV > -mx.inf if sampling.truncated else None
    return tokens_R.astype(mx.int32), logprobs_R1[:, 0], left_RV


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
        logits_RV = mx.where(logits_RV >= _nucleus(logits_RV, sampling), logits_RV, -mx.inf)
    if sampling.min_p > 0.0:
        top_R1 = logits_RV.max(axis=-1, keepdims=True)
        logits_RV = mx.where(exp_below(logits_RV, top_R1) >= sampling.min_p, logits_RV, -mx.inf)
    return logits_RV


def _nucleus(logits_RV: mx.array, sampling: Sampling) -> mx.array:
    """Return the smallest logit of the fewest tokens whose probability reaches top_p, (R, 1)."""
    # Ties that top_k kept beyond its count equal the last one in the sorted part.
    if 0 < sampling.top_k < logits_RV.shape[-1]:
        logits_RV = mx.topk(logits_RV, sampling.top_k, axis=-1)
    ranked_RV = -mx.sort(-logits_RV, axis=-1)
    weights_RV = exp_below(ranked_RV, ranked_RV[:, :1])
    before_RV = mx.cumsum(weights_RV, axis=-1) - weights_RV
    inside_RV = before_RV < sampling.top_p * weights_RV.sum(axis=-1, keepdims=True)
    return mx.where(inside_RV, ranked_RV, mx.inf).min(axis=-1, keepdims=True)
