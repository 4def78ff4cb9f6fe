"""Advantages of all groups of rewards at once, on the device, by `offapi.policy_loss.RULES`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from offapi.episodes import Floats
from offapi.policy_loss import NO_MEAN, STD_EPS, Rule, Shape, pad_rewards, shape_of


def advantages(
    rewards: Sequence[Sequence[float]], rule: Rule, device: torch.device
) -> list[Floats]:
    """See `Backend.advantages`. They are computed in float64 where the device has it."""
    shape = shape_of(rule)
    padded_PG, present_PG = pad_rewards(rewards)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    rewards_PG = torch.tensor(padded_PG, dtype=dtype, device=device)
    real_PG = torch.tensor(present_PG, device=device)
    advantages_PG = _advantages(rewards_PG, real_PG, shape)
    # Equality shows in the extremes: the mean of equal rewards may round to another number.
    most_P1 = rewards_PG.masked_fill(~real_PG, -torch.inf).max(-1, keepdim=True).values
    least_P1 = rewards_PG.masked_fill(~real_PG, torch.inf).min(-1, keepdim=True).values
    advantages_PG = advantages_PG.masked_fill(~real_PG | (most_P1 == least_P1), 0.0).float().cpu()
    groups = zip(advantages_PG, present_PG.sum(axis=1), strict=True)
    return [advantages_G[:size].numpy().copy() for advantages_G, size in groups]


def _advantages(rewards_PG: Tensor, real_PG: Tensor, shape: Shape) -> Tensor:
    """Return the advantages (P, G) of rewards that are padding where `real_PG` is False."""
    count_P1 = real_PG.sum(-1, keepdim=True)
    others_P1 = (count_P1 - 1).clamp(min=1)
    mean_P1 = rewards_PG.sum(-1, keepdim=True) / count_P1
    centred_PG = (rewards_PG - mean_P1).masked_fill(~real_PG, 0.0)
    match shape.advantage:
        case "centred":
            return centred_PG
        case "leave_one_out":
            return centred_PG * count_P1 / others_P1
        case "mean":
            return torch.where(mean_P1.abs() < NO_MEAN, 0.0, centred_PG / mean_P1)
        case "std":
            variance_P1 = centred_PG.square().sum(-1, keepdim=True) / others_P1
            return centred_PG / (variance_P1.sqrt() + STD_EPS)
