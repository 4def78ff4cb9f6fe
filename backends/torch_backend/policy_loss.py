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

    `logprobs`, `old`, `behaviour`, `reference` (N,) of E episodes end to end, `lengths` of each,
    `advantages` (E,). `old` None is the logprobs themselves, held constant. `sequences` and
    `tokens` count the whole batch. Statistics (5,): sum of ratios, largest, clipped low, clipped
    high, and how many ratios there are.
    """
    sizes = torch.tensor(lengths, device=logprobs.device)
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=logprobs.device), sizes)
    log_ratio = logprobs - (logprobs.detach() if old is None else old)
    of_token = loss.shape.ratio == "token"
    levels = log_ratio if of_token else _by_sequence(log_ratio, rows, sizes, loss)
    a = advantages.to(logprobs.dtype)
    a = a[rows] if of_token else a
    ratios, low, high = _clipped(levels.detach(), a, loss)
    if loss.shape.clipped:
        # A clipped ratio is a constant, and may not meet the gradient of an overflown exponential.
        cut = low | high
        bound = torch.where(
            low, logprobs.new_tensor(1 - loss.low), logprobs.new_tensor(1 + loss.high)
        )
        gain = torch.where(cut, bound, levels.masked_fill(cut, 0.0).exp()) * a
        part = -(gain if of_token else gain[rows])
    else:
        part = -ratios.clamp(max=1 + loss.high) * a * logprobs
    if behaviour is not None and loss.tis_cap > 0:
        start = logprobs.detach() if old is None else old
        part = part * (start - behaviour).exp().clamp(max=loss.tis_cap)
    if loss.beta > 0:
        if reference is None:
            raise ValueError("beta is above 0, and an experience has no reference logprobs")
        part = part + loss.beta * _kl(logprobs, log_ratio, reference, loss)
    weight = _weights(sizes.to(logprobs.dtype), loss, sequences, tokens)[rows]
    counts = (low.sum(), high.sum(), ratios.new_tensor(float(len(ratios))))
    return (part * weight).sum(), torch.stack((ratios.sum(), ratios.max(), *counts))


def _by_sequence(log_ratio: Tensor, rows: Tensor, sizes: Tensor, loss: PolicyLoss) -> Tensor:
    """The log-ratio of every sequence (E,): the sum of its tokens', or their mean."""
    summed = log_ratio.new_zeros(len(sizes)).index_add(0, rows, log_ratio)
    return summed / sizes if loss.shape.ratio == "sequence_mean" else summed


def _clipped(log_ratios: Tensor, a: Tensor, loss: PolicyLoss) -> tuple[Tensor, Tensor, Tensor]:
    """The ratios, and which of them the rule clips from below and from above."""
    ratios = log_ratios.exp()
    above, below = ratios > 1 + loss.high, ratios < 1 - loss.low
    if not loss.shape.clipped:
        return ratios, torch.zeros_like(below), above
    return ratios, below & (a < 0), above & (a > 0)


def _kl(logprobs: Tensor, log_ratio: Tensor, reference: Tensor, loss: PolicyLoss) -> Tensor:
    """An estimate (N,) whose gradient is that of KL(pi
    || reference): rho k3, or k2 (Schulman's names).
    """
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
