"""The policy losses as one function of per-token logprobs. The rules' table is `offapi.objective.RULES`.

Per token: -min(rho A, clip(rho) A) weighted by truncated importance sampling, and beta times
the KL to the reference; summed with weights whose normalisers are the whole batch's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from offapi.objective import PolicyLoss


def policy_loss(
    logprobs: Tensor,
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

    `logprobs`, `old`, `behaviour`, `reference` (N,) of E episodes end to end, `lengths` of each, `advantages` (E,).
    `old` None is the logprobs themselves, held constant. `sequences` and `tokens` count the whole batch.
    Statistics (5,): sum of ratios, largest, clipped low, clipped high, and how many ratios there are.
    """
    sizes = torch.tensor(lengths, device=logprobs.device)
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=logprobs.device), sizes)
    log_ratio = logprobs - (logprobs.detach() if old is None else old)
    each = _ratios(log_ratio, rows, sizes, loss)
    ratio = each if loss.shape.ratio == "token" else each[rows]
    a = advantages.to(logprobs.dtype)[rows]
    if loss.shape.clipped:
        part = -torch.minimum(ratio * a, ratio.clamp(1 - loss.low, 1 + loss.high) * a)
    else:
        part = -ratio.detach().clamp(max=1 + loss.high) * a * logprobs
    if behaviour is not None and loss.tis_cap:
        start = logprobs.detach() if old is None else old
        part = part * (start - behaviour).exp().clamp(max=loss.tis_cap)
    if loss.beta:
        if reference is None:
            raise ValueError("beta is above 0, and an experience has no reference logprobs")
        part = part + loss.beta * _kl(logprobs, log_ratio, reference, loss)
    weight = _weights(sizes.to(logprobs.dtype), loss, sequences, tokens)[rows]
    return (part * weight).sum(), _statistics(each.detach(), a, rows, loss)


def _ratios(log_ratio: Tensor, rows: Tensor, sizes: Tensor, loss: PolicyLoss) -> Tensor:
    """rho of every token (N,), or of every sequence (E,)."""
    if loss.shape.ratio == "token":
        return log_ratio.exp()
    summed = log_ratio.new_zeros(len(sizes)).index_add(0, rows, log_ratio)
    return (summed / sizes if loss.shape.ratio == "sequence_mean" else summed).exp()


def _kl(logprobs: Tensor, log_ratio: Tensor, reference: Tensor, loss: PolicyLoss) -> Tensor:
    """An estimate (N,) whose gradient is that of KL(pi || reference): rho k3, or k2 (Schulman's names)."""
    d = reference - logprobs
    return d.square() / 2 if loss.kl == "k2" else log_ratio.exp() * (d.exp() - d - 1)


def _weights(sizes: Tensor, loss: PolicyLoss, sequences: int, tokens: int) -> Tensor:
    """The weight of each token of a sequence, (E,)."""
    match loss.shape.aggregation:
        case "sequence":
            return 1 / (sequences * sizes)
        case "token":
            return torch.ones_like(sizes) / tokens
        case "length":
            return torch.ones_like(sizes) / (sequences * loss.max_tokens)


def _statistics(ratios: Tensor, a: Tensor, rows: Tensor, loss: PolicyLoss) -> Tensor:
    if loss.shape.ratio != "token":
        a = a.new_zeros(len(ratios)).index_copy(0, rows, a)
    above, below = ratios > 1 + loss.high, ratios < 1 - loss.low
    high = above & (a > 0) if loss.shape.clipped else above
    low = below & (a < 0) & loss.shape.clipped
    units = torch.tensor(float(len(ratios)), dtype=ratios.dtype, device=ratios.device)
    return torch.stack((ratios.sum(), ratios.max(), low.sum(), high.sum(), units))
