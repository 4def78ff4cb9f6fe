"""Advantages of all groups of rewards at once, on the device, by `offapi.policy_loss.RULES`."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from offapi.episodes import Floats
from offapi.policy_loss import NO_MEAN, STD_EPS, Rule, Shape, pad_rewards, shape_of


def advantages(rewards: Sequence[Sequence[float]], rule: Rule) -> list[Floats]:
    """See `Backend.advantages`. They are computed in float64 where the device has it."""
    shape = shape_of(rule)
    padded_PG, present_PG = pad_rewards(rewards)
    dtype = mx.float32 if mx.default_device().type == mx.DeviceType.gpu else mx.float64
    rewards_PG, real_PG = mx.array(padded_PG, dtype), mx.array(present_PG)
    advantages_PG = _advantages(rewards_PG, real_PG, shape)
    # Equality shows in the extremes: the mean of equal rewards may round to another number.
    most_P1 = mx.where(real_PG, rewards_PG, -mx.inf).max(axis=1, keepdims=True)
    least_P1 = mx.where(real_PG, rewards_PG, mx.inf).min(axis=1, keepdims=True)
    advantages_PG = mx.where(most_P1 > least_P1, advantages_PG, 0.0)
    groups = zip(np.array(advantages_PG), present_PG.sum(axis=1), strict=True)
    return [advantages_G[:size].astype(np.float32) for advantages_G, size in groups]


def _advantages(rewards_PG: mx.array, real_PG: mx.array, shape: Shape) -> mx.array:
    """Return the advantages (P, G) of rewards that are padding where `real_PG` is False."""
    count_P1 = real_PG.sum(axis=1, keepdims=True)
    others_P1 = mx.maximum(count_P1 - 1, 1)
    mean_P1 = rewards_PG.sum(axis=1, keepdims=True) / count_P1
    centred_PG = mx.where(real_PG, rewards_PG - mean_P1, 0.0)
    match shape.advantage:
        case "centred":
            return centred_PG
        case "leave_one_out":
            return centred_PG * count_P1 / others_P1
        case "mean":
            zero_P1 = mx.abs(mean_P1) < NO_MEAN
            return mx.where(zero_P1, 0.0, centred_PG / mx.where(zero_P1, 1.0, mean_P1))
        case "std":
            variance_P1 = mx.square(centred_PG).sum(axis=1, keepdims=True) / others_P1
            return centred_PG / (mx.sqrt(variance_P1) + STD_EPS)
