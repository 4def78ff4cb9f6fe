"""The policy losses as one function of per-token
logprobs. The rules' table is `offapi.policy_loss.RULES`.

Per token: -min(rho A, clip(rho) A) weighted by truncated importance sampling, and beta times
the KL to the reference; summed with weights whose normalisers are the whole batch's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from offapi.policy_loss import PolicyLoss


def policy_loss(
    logprobs_T: Tensor,
    *,
    old: Tensor | None,
    behaviour: Tensor | None,
    reference: Tensor | None,
    advantages: Tensor,
    lengths: Sequence[int],
    loss: PolicyLoss,
    sequences: int,
    tokens: int,
) -> tuple[Tensor, Tensor]:
    """This part's summand of the loss, and its statistics.

    `logprobs_T`, `old`, `behaviour`, `reference` (T,) are those of E episodes end to end, `lengths`
    of each, `advantages` (E,). `old` None is the logprobs themselves, held constant. `sequences`
    and `tokens` count the whole batch. Statistics (5,): sum of ratios, largest, clipped low,
    clipped high, and how many ratios there are.
    """
    device, dtype = logprobs_T.device, logprobs_T.dtype
    sizes_E, advantages_E = torch.tensor(lengths, device=device), advantages.to(dtype)
    owner_T = torch.repeat_interleave(torch.arange(len(lengths), device=device), sizes_E)
    old_T = logprobs_T.detach() if old is None else old
    log_ratio_T = logprobs_T - old_T
    gain_T, statistics = _gain(logprobs_T, log_ratio_T, advantages_E, owner_T, sizes_E, loss)
    each_T = -gain_T
    if behaviour is not None and loss.tis_cap > 0:
        each_T = each_T * (old_T - behaviour).exp().clamp(max=loss.tis_cap)
    if loss.beta > 0:
        if reference is None:
            raise ValueError("beta is above 0, and an experience has no reference logprobs")
        each_T = each_T + loss.beta * _divergence(logprobs_T, log_ratio_T, reference, loss)
    weight_T = _weights(sizes_E.to(dtype), loss, sequences, tokens)[owner_T]
    return (each_T * weight_T).sum(), statistics


def _gain(
    logprobs_T: Tensor,
    log_ratio_T: Tensor,
    advantages_E: Tensor,
    owner_T: Tensor,
    sizes_E: Tensor,
    loss: PolicyLoss,
) -> tuple[Tensor, Tensor]:
    """What each token gains (T,), and the statistics; U ratios, of tokens or of sequences."""
    of_token = loss.shape.ratio == "token"
    log_ratio_U = log_ratio_T if of_token else _by_sequence(log_ratio_T, owner_T, sizes_E, loss)
    advantages_U = advantages_E[owner_T] if of_token else advantages_E
    ratios_U, low_U, high_U = _clipped(log_ratio_U.detach(), advantages_U, loss)
    counts = (low_U.sum(), high_U.sum(), ratios_U.new_tensor(float(len(ratios_U))))
    statistics = torch.stack((ratios_U.sum(), ratios_U.max(), *counts))
    if not loss.shape.clipped:
        return ratios_U.clamp(max=1 + loss.high) * advantages_U * logprobs_T, statistics
    # A clipped ratio is a constant, and may not meet the gradient of an overflown exponential.
    cut_U = low_U | high_U
    least, most = logprobs_T.new_tensor(1 - loss.low), logprobs_T.new_tensor(1 + loss.high)
    free_U = log_ratio_U.masked_fill(cut_U, 0.0).exp()
    gain_U = torch.where(cut_U, torch.where(low_U, least, most), free_U) * advantages_U
    return gain_U if of_token else gain_U[owner_T], statistics


def _by_sequence(log_ratio_T: Tensor, owner_T: Tensor, sizes_E: Tensor, loss: PolicyLoss) -> Tensor:
    """The log-ratio of every sequence (E,): the sum of its tokens', or their mean."""
    summed_E = log_ratio_T.new_zeros(len(sizes_E)).index_add(0, owner_T, log_ratio_T)
    return summed_E / sizes_E if loss.shape.ratio == "sequence_mean" else summed_E


def _clipped(
    log_ratio_U: Tensor, advantages_U: Tensor, loss: PolicyLoss
) -> tuple[Tensor, Tensor, Tensor]:
    """The ratios, and which of them the rule clips from below and from above."""
    ratios_U = log_ratio_U.exp()
    above_U, below_U = ratios_U > 1 + loss.high, ratios_U < 1 - loss.low
    if not loss.shape.clipped:
        return ratios_U, torch.zeros_like(below_U), above_U
    return ratios_U, below_U & (advantages_U < 0), above_U & (advantages_U > 0)


def _divergence(
    logprobs_T: Tensor, log_ratio_T: Tensor, reference_T: Tensor, loss: PolicyLoss
) -> Tensor:
    """An estimate of KL(pi || reference) at each token (T,)
    whose gradient is the KL's (arXiv 2512.21852).
    """
    d_T = reference_T - logprobs_T
    return d_T.square() / 2 if loss.kl == "k2" else log_ratio_T.exp() * (d_T.exp() - d_T - 1)


def _weights(sizes_E: Tensor, loss: PolicyLoss, sequences: int, tokens: int) -> Tensor:
    """The weight of each token of a sequence, (E,)."""
    match loss.shape.aggregation:
        case "sequence":
            return 1 / (sequences * sizes_E)
        case "token":
            return torch.ones_like(sizes_E) / tokens
        case "length":
            return torch.ones_like(sizes_E) / (sequences * loss.max_tokens)
