"""From the rewards of each group to its advantages, all groups at once on the device."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from offapi.episodes import Floats
from offapi.policy_loss import RULES, STD_EPS, Rule

SMALLEST_MEAN = 1e-12  # a mean below this is 0, and divides nothing


def advantages(rewards: Sequence[Sequence[float]], rule: Rule) -> list[Floats]:
    """Advantages (G,) of each group under `rule` (see
    `offapi.policy_loss.Shape`), exactly 0 where all rewards are equal.

    Computed in float64 where the device has it. Raises ValueError
    for a reward that is not finite, or an empty group.
    """
    sizes = [len(group) for group in rewards]
    if not sizes or not all(sizes):
        raise ValueError("every group needs at least one reward")
    padded = np.zeros((len(sizes), max(sizes)), np.float64)
    real = np.arange(padded.shape[1]) < np.array(sizes)[:, None]
    padded[real] = [reward for group in rewards for reward in group]
    if not np.isfinite(padded).all():
        group, place = np.argwhere(~np.isfinite(padded))[0]
        raise ValueError(
            f"the reward {rewards[group][place]} of completion {place} in group {group} is not"
            " finite"
        )
    kind = mx.float32 if mx.default_device().type == mx.DeviceType.gpu else mx.float64
    found = np.array(_advantages(mx.array(padded, kind), mx.array(real), RULES[rule].advantage))
    return [row[:size].astype(np.float32) for row, size in zip(found, sizes, strict=True)]


def _advantages(rewards: mx.array, real: mx.array, kind: str) -> mx.array:
    """`rewards` (groups, G) are padded where `real` is False."""
    count = real.sum(axis=1, keepdims=True)
    mean = rewards.sum(axis=1, keepdims=True) / count
    centred = mx.where(real, rewards - mean, 0.0)
    others = mx.maximum(count - 1, 1)
    if kind == "std":  # Bessel's
        centred = centred / (
            mx.sqrt(mx.square(centred).sum(axis=1, keepdims=True) / others) + STD_EPS
        )
    elif kind == "leave_one_out":
        centred = centred * count / others
    elif kind == "mean":
        zero = mx.abs(mean) < SMALLEST_MEAN
        centred = mx.where(zero, 0.0, centred / mx.where(zero, 1.0, mean))
    # By the extremes: the mean of equal rewards may round to another number.
    highest = mx.where(real, rewards, -mx.inf).max(axis=1, keepdims=True)
    lowest = mx.where(real, rewards, mx.inf).min(axis=1, keepdims=True)
    return mx.where(highest > lowest, centred, 0.0)
