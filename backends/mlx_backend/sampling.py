"""From logits and one uniform a row to a token and the logprob it was really sampled with.

Order: temperature, top-k, top-p, min-p, renormalise. Ties at a threshold are all kept, so that
the kept set does not hang on how a sort breaks them.
"""

from __future__ import annotations

import mlx.core as mx

from offapi.backend import Sampling

from .linux_cpu.fast_exp import exp_below


def choose(
    logits: mx.array, uniforms: mx.array, sampling: Sampling
) -> tuple[mx.array, mx.array, mx.array | None]:
    """Tokens and their logprobs (nats), each (rows,),
    from fp32 `logits` (rows, V) and `uniforms` (rows,).

    Sampled: the first kept token, in vocabulary order, at which the cumulative probability
    exceeds the uniform. Temperature 0: the largest logit, with its logprob at temperature 1.
    Where the sampling is truncated, the third is the kept sets, bool (rows, V).
    """
    if sampling.temperature > 0:
        logits = truncate(logits / sampling.temperature, sampling)
    top = logits.max(axis=-1, keepdims=True)
    weights = exp_below(logits, top)
    if sampling.temperature > 0:
        tokens = first_beyond(mx.cumsum(weights, axis=-1), weights > 0, uniforms)
    else:
        tokens = mx.argmax(logits, axis=-1)
    chosen = mx.take_along_axis(logits, tokens[:, None], axis=-1)
    logprobs = chosen - top - mx.log(weights.sum(axis=-1, keepdims=True))
    kept = logits > -mx.inf if sampling.truncated else None
    return tokens.astype(mx.int32), logprobs[:, 0], kept


def first_beyond(reached: mx.array, possible: mx.array, uniforms: mx.array) -> mx.array:
    """The first possible token (rows,) whose cumulative
    weight `reached` (rows, V) exceeds its share.

    A parallel sum is rounded block by block: it can fall where nothing is added. So uniforms are
    scaled by what it reached, and no token of weight 0 is drawn.
    """
    places = mx.arange(reached.shape[-1])
    last = mx.where(possible, places, 0).max(axis=-1)
    beyond = mx.logical_and(possible, reached > uniforms[:, None] * reached[:, -1:])
    return mx.minimum(mx.where(beyond, places, reached.shape[-1]).min(axis=-1), last)


def truncate(logits: mx.array, sampling: Sampling) -> mx.array:
    """`logits` (rows, V) with -inf outside the kept set."""
    size = logits.shape[-1]
    if 0 < sampling.top_k < size:
        smallest = mx.topk(logits, sampling.top_k, axis=-1).min(axis=-1, keepdims=True)
        logits = mx.where(logits >= smallest, logits, -mx.inf)
    if sampling.top_p < 1.0:
        logits = mx.where(logits >= _nucleus(logits, sampling), logits, -mx.inf)
    if sampling.min_p > 0.0:
        top = logits.max(axis=-1, keepdims=True)
        logits = mx.where(exp_below(logits, top) >= sampling.min_p, logits, -mx.inf)
    return logits


def _nucleus(logits: mx.array, sampling: Sampling) -> mx.array:
    """The smallest logit of the fewest tokens whose probability reaches top_p, shape (rows, 1)."""
    if (
        0 < sampling.top_k < logits.shape[-1]
    ):  # ties beyond top_k are below the sorted part only if equal to it
        logits = mx.topk(logits, sampling.top_k, axis=-1)
    ranked = -mx.sort(-logits, axis=-1)
    weights = exp_below(ranked, ranked[:, :1])
    before = mx.cumsum(weights, axis=-1) - weights
    inside = before < sampling.top_p * weights.sum(axis=-1, keepdims=True)
    return mx.where(inside, ranked, mx.inf).min(axis=-1, keepdims=True)
