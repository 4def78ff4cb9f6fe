"""The loss of GRPO and its relatives as a pure function of
logprobs; what the rules are stands in `offapi.policy_loss`.

Left out: where the logprobs come from, and
micro-batches: a part's loss is a summand of the batch's.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from offapi.policy_loss import PolicyLoss


def policy_loss(
    logprobs: mx.array,
    *,
    old: mx.array | None,
    behaviour: mx.array | None,
    reference: mx.array | None,
    advantages: mx.array,
    lengths: Sequence[int],
    loss: PolicyLoss,
    sequences: int,
    tokens: int,
) -> tuple[mx.array, mx.array]:
    """The summand that E episodes add to the loss of a batch
    of `sequences` episodes with `tokens` masked tokens.

    `logprobs` (N,) are those of the episodes end to end, nats, `lengths` (E,) says how many each
    has; `old`, `behaviour` and `reference` are (N,) too, constants. No `old`: the logprobs
    themselves, so the ratio is 1. No
    `behaviour`: no importance weight. `advantages` (E,). The dtype is that of `logprobs`.

    Returns the scalar, and statistics (5,): the sum of the ratios, the largest, how many were
    clipped low and high, and how many there are (tokens, or sequences for a ratio of sequences).
    """
    owner = mx.array(np.repeat(np.arange(len(lengths)), lengths))  # of each token
    counts = mx.array(list(lengths)).astype(logprobs.dtype)
    old = mx.stop_gradient(logprobs) if old is None else old
    log_ratios = _log_ratios(logprobs - old, owner, counts, loss)
    of_token = loss.shape.ratio == "token"
    ratios, low, high = _clipped(
        mx.stop_gradient(log_ratios), advantages[owner] if of_token else advantages, loss
    )
    stats = mx.stack([ratios.sum(), ratios.max(), low.sum(), high.sum(), mx.array(ratios.size)])
    if not of_token:
        log_ratios, ratios, low, high = log_ratios[owner], ratios[owner], low[owner], high[owner]
    if loss.shape.clipped:
        # A clipped ratio is a constant, and may not meet the gradient of an overflown exponential.
        bound = mx.where(low, 1 - loss.low, 1 + loss.high).astype(logprobs.dtype)
        gain = mx.where(low | high, bound, mx.exp(mx.where(low | high, 0.0, log_ratios)))
    else:
        gain = mx.minimum(ratios, 1 + loss.high) * logprobs
    each = -gain * advantages[owner]
    if behaviour is not None and loss.tis_cap > 0:
        each = each * mx.minimum(mx.exp(mx.stop_gradient(old - behaviour)), loss.tis_cap)
    if loss.beta > 0:
        if reference is None:
            raise ValueError("beta is above 0, and an experience has no reference logprobs")
        each = each + loss.beta * _divergence(logprobs, old, reference, loss)
    return (each * _weights(counts, owner, loss, sequences, tokens)).sum(), stats.astype(
        logprobs.dtype
    )


def _log_ratios(
    of_tokens: mx.array, owner: mx.array, counts: mx.array, loss: PolicyLoss
) -> mx.array:
    """Of each token (N,), or of each sequence (E,)."""
    if loss.shape.ratio == "token":
        return of_tokens
    sums = mx.zeros(counts.shape, of_tokens.dtype).at[owner].add(of_tokens)
    return sums / counts if loss.shape.ratio == "sequence_mean" else sums


def _clipped(
    log_ratios: mx.array, advantages: mx.array, loss: PolicyLoss
) -> tuple[mx.array, mx.array, mx.array]:
    """The ratios, and which of them the rule clips from below and from above."""
    ratios = mx.exp(log_ratios)
    above = ratios > 1 + loss.high
    if not loss.shape.clipped:
        return ratios, mx.zeros_like(above), above
    return ratios, (advantages < 0) & (ratios < 1 - loss.low), (advantages > 0) & above


def _divergence(
    logprobs: mx.array, old: mx.array, reference: mx.array, loss: PolicyLoss
) -> mx.array:
    """An estimate of KL(pi || reference) at each token
    whose gradient is the KL's (arXiv 2512.21852).
    """
    d = reference - logprobs
    if loss.kl == "k2":
        return mx.square(d) / 2
    return mx.exp(logprobs - old) * (mx.exp(d) - d - 1)


def _weights(
    counts: mx.array, owner: mx.array, loss: PolicyLoss, sequences: int, tokens: int
) -> mx.array:
    """What each token's loss is multiplied by, broadcast to (N,)."""
    if loss.shape.aggregation == "sequence":
        return 1 / (sequences * counts[owner])
    if loss.shape.aggregation == "token":
        return mx.array(1 / tokens).astype(counts.dtype)
    return mx.array(1 / (sequences * loss.max_tokens)).astype(counts.dtype)
