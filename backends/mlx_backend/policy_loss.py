"""The policy losses as one function of per-token logprobs, by the table `offapi.policy_loss.RULES`.

Per token: -min(rho A, clip(rho) A) weighted by truncated importance sampling, and beta times the KL
to the reference; summed with weights whose normalisers are the whole batch's. Left out: where the
logprobs come from, and micro-batches: a part's loss is a term of the batch's.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from offapi.policy_loss import PolicyLoss


def policy_loss(
    logprobs_T: mx.array,
    *,
    old_T: mx.array | None,
    behaviour_T: mx.array | None,
    reference_T: mx.array | None,
    advantages_U: mx.array,
    lengths: Sequence[int],
    loss: PolicyLoss,
    sequences: int,
    tokens: int,
) -> tuple[mx.array, mx.array]:
    """Return this part's term of the loss, and its statistics, in the dtype of `logprobs_T`.

    The arrays (T,) are those of E episodes end to end, whose `lengths` are given. `advantages_U`
    has one number for each ratio. Without `old_T`, the logprobs themselves are the old ones, held
    constant. `sequences` and `tokens` count the whole batch. Statistics (5,): sum of ratios,
    largest, clipped low, clipped high, and number of ratios.
    """
    dtype = logprobs_T.dtype
    owner_T = mx.array(np.repeat(np.arange(len(lengths)), lengths))
    sizes_E = mx.array(list(lengths)).astype(dtype)
    old_T = mx.stop_gradient(logprobs_T) if old_T is None else old_T
    log_ratio_T = logprobs_T - old_T
    gain_T, statistics = _gain(logprobs_T, log_ratio_T, advantages_U, owner_T, sizes_E, loss)
    loss_T = -gain_T
    if behaviour_T is not None and loss.tis_cap > 0:
        loss_T = loss_T * mx.minimum(mx.exp(mx.stop_gradient(old_T - behaviour_T)), loss.tis_cap)
    if loss.beta > 0:
        if reference_T is None:
            raise ValueError(f"beta {loss.beta:g} needs reference logprobs, got none")
        loss_T = loss_T + loss.beta * _divergence(logprobs_T, log_ratio_T, reference_T, loss)
    weight_T = _weights(sizes_E, loss, sequences, tokens)[owner_T]
    return (loss_T * weight_T).sum(), statistics.astype(dtype)


def _gain(
    logprobs_T: mx.array,
    log_ratio_T: mx.array,
    advantages_U: mx.array,
    owner_T: mx.array,
    sizes_E: mx.array,
    loss: PolicyLoss,
) -> tuple[mx.array, mx.array]:
    """Return what each token gains (T,), and the statistics of the ratios."""
    of_token = loss.shape.ratio == "token"
    log_ratio_U = log_ratio_T if of_token else _by_sequence(log_ratio_T, owner_T, sizes_E, loss)
    ratios_U, low_U, high_U = _clipped(mx.stop_gradient(log_ratio_U), advantages_U, loss)
    counts = (low_U.sum(), high_U.sum(), mx.array(ratios_U.size))
    statistics = mx.stack([ratios_U.sum(), ratios_U.max(), *counts])
    if not loss.shape.clipped:
        return mx.minimum(ratios_U, 1 + loss.high) * advantages_U * logprobs_T, statistics
    # A clipped ratio is a constant, kept away from the gradient of an exponential that overflowed.
    cut_U = low_U | high_U
    bound_U = mx.where(low_U, 1 - loss.low, 1 + loss.high).astype(logprobs_T.dtype)
    free_U = mx.exp(mx.where(cut_U, 0.0, log_ratio_U))
    gain_U = mx.where(cut_U, bound_U, free_U) * advantages_U
    return gain_U if of_token else gain_U[owner_T], statistics


def _by_sequence(
    log_ratio_T: mx.array, owner_T: mx.array, sizes_E: mx.array, loss: PolicyLoss
) -> mx.array:
    """Return the log-ratio of every sequence (E,): the sum or the mean of its tokens'."""
    summed_E = mx.zeros(sizes_E.shape, log_ratio_T.dtype).at[owner_T].add(log_ratio_T)
    return summed_E / sizes_E if loss.shape.ratio == "sequence_mean" else summed_E


def _clipped(
    log_ratio_U: mx.array, advantages_U: mx.array, loss: PolicyLoss
) -> tuple[mx.array, mx.array, mx.array]:
    """Return the ratios, and which of them the rule clips from below and from above."""
    ratios_U = mx.exp(log_ratio_U)
    above_U, below_U = ratios_U > 1 + loss.high, ratios_U < 1 - loss.low
    if not loss.shape.clipped:
        return ratios_U, mx.zeros_like(below_U), above_U
    return ratios_U, below_U & (advantages_U < 0), above_U & (advantages_U > 0)


def _divergence(
    logprobs_T: mx.array, log_ratio_T: mx.array, reference_T: mx.array, loss: PolicyLoss
) -> mx.array:
    """Return an estimate of KL(pi || reference) at each token (T,).

    Its gradient is the KL's (arXiv 2512.21852).
    """
    d_T = reference_T - logprobs_T
    return mx.square(d_T) / 2 if loss.kl == "k2" else mx.exp(log_ratio_T) * (mx.exp(d_T) - d_T - 1)


def _weights(sizes_E: mx.array, loss: PolicyLoss, sequences: int, tokens: int) -> mx.array:
    """Return the weight of each token of a sequence, (E,)."""
    match loss.shape.aggregation:
        case "sequence":
            return 1 / (sequences * sizes_E)
        case "token":
            return mx.ones_like(sizes_E) / tokens
        case "length":
            return mx.ones_like(sizes_E) / (sequences * loss.max_tokens)
