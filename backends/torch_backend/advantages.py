"""Advantages of groups of rewards, all groups at once on the device.

The rules' table is `offapi.policy_loss.RULES`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from offapi.episodes import Floats
from offapi.policy_loss import RULES, STD_EPS, Rule

NO_MEAN = 1e-12  # a mean reward nearer to 0 gives maxrl no signal


def advantages(
    rewards: Sequence[Sequence[float]], rule: Rule, device: torch.device
) -> list[Floats]:
    """See `Backend.advantages`. Computed in float64 where the device has it."""
    sizes = [len(group) for group in rewards]
    if not sizes or not all(sizes):
        raise ValueError("every group needs at least one reward")
    widest = max(sizes)
    kind = torch.float32 if device.type == "mps" else torch.float64
    r = torch.tensor(
        [[*group, *[0.0] * (widest - len(group))] for group in rewards], dtype=kind, device=device
    )
    if not bool(r.isfinite().all()):
        raise ValueError("a reward is not a finite number")
    count = torch.tensor(sizes, dtype=kind, device=device)[:, None]
    present = torch.arange(widest, device=device)[None] < count
    found = _rule(r, present, count, rule)
    most = r.masked_fill(~present, -torch.inf).max(-1, keepdim=True).values
    least = r.masked_fill(~present, torch.inf).min(-1, keepdim=True).values
    found = (
        found.masked_fill(~present | (most == least), 0.0).float().cpu()
    )  # the mean of equal numbers may round
    return [row[:size].numpy().copy() for row, size in zip(found, sizes, strict=True)]


def _rule(r: Tensor, present: Tensor, count: Tensor, rule: Rule) -> Tensor:
    mean = r.sum(-1, keepdim=True) / count
    centred = (r - mean).masked_fill(~present, 0.0)
    match RULES[rule].advantage:
        case "centred":
            return centred
        case "leave_one_out":
            return centred * count / (count - 1).clamp(min=1)
        case "mean":
            return torch.where(mean.abs() < NO_MEAN, 0.0, centred / mean)
        case "std":
            variance = centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)
            return centred / (variance.sqrt() + STD_EPS)
