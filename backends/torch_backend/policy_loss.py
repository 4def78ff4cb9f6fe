"""The policy losses as one function of per-token logprobs, by the table `offapi.policy_loss.RULES`.

Per token: -min(rho A, clip(rho) A) weighted by truncated importance sampling, and beta times the KL
to the reference; summed with weights whose normalisers are the whole batch's. Left out: where the
logprobs come from, and micro-batches: a part's loss is a term of the batch's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from offapi.policy_loss import PolicyLoss


def policy_loss(
    logprobs_T: Tensor,
    *,
    old_T: Tensor | None,
    behaviour_T: Tensor | None,
    reference_T: Tensor | None,
    advantages_U: Tensor,
    lengths: Sequence[int],
    loss: PolicyLoss,
    sequences: int,
    tokens: int,
) -> tuple[Tensor, Tensor]:
    """Return this part's term of the loss, and its statistics.

    The arrays (T,) are those of E episodes end to end, whose `lengths` are given. `advantages_U`
    has one number for each ratio. Without `old_T`, the logprobs themselves are the old ones, held
    constant. `sequences` and `tokens` count the whole batch. Statistics (5,): sum of ratios,
    largest, clipped low, clipped high, and number of ratios.
    """
    device, dtype = logprobs_T.device, logprobs_T.dtype
    sizes_E, advantages_U = torch.tensor(lengths, device=device), advantages_U.to(dtype)
    owner_T = torch.repeat_interleave(torch.arange(len(lengths), device=device), sizes_E)
    old_T = logprobs_T.detach() if old_T is None else old_T
    log_ratio_T = logprobs_T - old_T
    gain_T, statistics = _gain(logprobs_T, log_ratio_T, advantages_U, owner_T, sizes_E, loss)
    loss_T = -gain_T
    if behaviour_T is not None and loss.tis_cap > 0:
        loss_T = loss_T * (old_T - behaviour_T).exp().clamp(max=loss.tis_cap)
    if loss.beta > 0:
        if reference_T is None:
            raise ValueError(f"beta {loss.beta:g} needs reference logprobs, got none")
        loss_T = loss_T + loss.beta * _divergence(logprobs_T, log_ratio_T, reference_T, loss)
    weight_T = _weights(sizes_E.to(dtype), loss, sequences, tokens)[owner_T]
    return (loss_T * weight_T).sum(), statistics


def _gain(
    logprobs_T: Tensor,
    log_ratio_T: Tensor,
    advantages_U: Tensor,
    owner_T: Tensor,
    sizes_E: Tensor,
    loss: PolicyLoss,
) -> tuple[Tensor, Tensor]:
    """Return what each token gains (T,), and the statistics of the ratios."""
    of_token = loss.shape.ratio == "token"
    log_ratio_U = log_ratio_T if of_token else _by_sequence(log_ratio_T, owner_T, sizes_E, loss)
    ratios_U, low_U, high_U = _clipped(log_ratio_U.detach(), advantages_U, loss)
    counts = (low_U.sum(), high_U.sum(), ratios_U.new_tensor(float(len(ratios_U))))
    statistics = torch.stack((ratios_U.sum(), ratios_U.max(), *counts))
    if not loss.shape.clipped:
        return ratios_U.clamp(max=1 + loss.high) * advantages_U * logprobs_T, statistics
    # A clipped ratio is a constant, kept away from the gradient of an exponential that overflowed.
    cut_U = low_U | high_U
    least, most = logprobs_T.new_tensor(1 - loss.low), logprobs_T.new_tensor(1 + loss.high)
    bound_U = torch.where(low_U, least, most)
    free_U = log_ratio_U.masked_fill(cut_U, 0.0).exp()
    gain_U = torch.where(cut_U, bound_U, free_U) * advantages_U
    return gain_U if of_token else gain_U[owner_T], statistics


def _by_sequence(log_ratio_T: Tensor, owner_T: Tensor, sizes_E: Tensor, loss: PolicyLoss) -> Tensor:
    """Return the log-ratio of every sequence (E,): the sum or the mean of its tokens'."""
    summed_E = log_ratio_T.new_zeros(len(sizes_E)).index_add(0, owner_T, log_ratio_T)
    return summed_E / sizes_E if loss.shape.ratio == "sequence_mean" else summed_E


def _clipped(
    log_ratio_U: Tensor, advantages_U: Tensor, loss: PolicyLoss
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ratios, and which of them the rule clips from below and from above."""
    ratios_U = log_ratio_U.exp()
    above_U, below_U = ratios_U > 1 + loss.high, ratios_U < 1 - loss.low
    if not loss.shape.clipped:
        return ratios_U, torch.zeros_like(below_U), above_U
    return ratios_U, below_U & (advantages_U < 0), above_U & (advantages_U > 0)


def _divergence(
    logprobs_T: Tensor, log_ratio_T: Tensor, reference_T: Tensor, loss: PolicyLoss
) -> Tensor:
    """Return an estimate of KL(pi || reference) at each token (T,).

    Its gradient is the KL's (arXiv 2512.21852).
    """
    d_T = reference_T - logprobs_T
    return d_T.square() / 2 if loss.kl == "k2" else log_ratio_T.exp() * (d_T.exp() - d_T - 1)


def _weights(sizes_E: Tensor, loss: PolicyLoss, sequences: int, tokens: int) -> Tensor:
    """Return the weight of each token of a sequence, (E,)."""
    match loss.shape.aggregation:
        case "sequence":
            return 1 / (sequences * sizes_E)
        case "token":
            return torch.ones_like(sizes_E) / tokens
        case "length":
            return torch.ones_like(sizes_E) / (sequences * loss.max_tokens)
