"""The policy loss over a batch of experiences: which of
them count, in what micro-batches, and what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from offapi.batching import packs
from offapi.episodes import Floats, Metrics
from offapi.policy_loss import Experience, PolicyLoss, Update, check

from .losses import check_trainable, logprobs
from .policy import Policy
from .policy_loss import policy_loss


def policy_gradient(policy: Policy, batch: Sequence[Experience], loss: PolicyLoss) -> Update:
    """See `Backend.policy_gradient`.

    What cannot contribute is not computed: its summand is exactly 0.
    """
    check_trainable(policy)
    check(batch, loss)
    tokens = sum(sum(one.episode.mask) for one in batch)
    live = [one for one in batch if one.advantage != 0 or loss.beta > 0]
    episodes = [one.episode for one in live]
    found: dict[int, Floats] = {}
    total, statistics = 0.0, torch.zeros(5)
    for pack in packs(episodes, policy.spec.limits.micro_batch):
        members = [live[i] for i in pack.episodes]
        current = logprobs(policy, pack, episodes, loss.temperature)
        old = _flat([one.old for one in members], current, pack.counts)
        value, seen = policy_loss(
            current,
            old=old,
            behaviour=_flat(
                [one.episode.behaviour for one in members],
                current if old is None else old,
                pack.counts,
            ),
            reference=_flat([one.reference for one in members], current, pack.counts),
            advantages=torch.tensor(
                [one.advantage for one in members], dtype=torch.float32, device=policy.device
            ),
            lengths=pack.counts,
            loss=loss,
            sequences=len(batch),
            tokens=tokens,
        )
        value.backward()  # type: ignore[no-untyped-call]
        total += float(value.detach())
        statistics = _combined(statistics, seen.cpu())
        found |= pack.split(current.detach().cpu().numpy())
    computed = iter(range(len(live)))
    parts = tuple(
        found[next(computed)] if one.advantage != 0 or loss.beta > 0 else None for one in batch
    )
    return Update(
        {"loss": total, "tokens": float(sum(map(len, found.values()))), **_described(statistics)},
        parts,
    )


def _flat(
    arrays: Sequence[Floats | None], otherwise: Tensor, counts: Sequence[int]
) -> Tensor | None:
    """`arrays` end to end (N,), those that are missing
    taken from `otherwise` as constants; None where all are.
    """
    if all(array is None for array in arrays):
        return None
    parts = torch.split(otherwise.detach(), list(counts))
    device = otherwise.device
    return torch.cat(
        [
            part if array is None else torch.from_numpy(np.array(array, np.float32)).to(device)
            for array, part in zip(arrays, parts, strict=True)
        ]
    )


def _combined(one: Tensor, other: Tensor) -> Tensor:
    """Statistics of two parts: sums add up, the largest is the larger one."""
    both = one + other
    both[1] = torch.maximum(one[1], other[1])
    return both


def _described(statistics: Tensor) -> Metrics:
    """Statistics of the whole batch by their names in the metrics."""
    total, largest, low, high, count = statistics.tolist()
    if not count:
        return {
            "ratio/mean": 1.0,
            "ratio/max": 1.0,
            "clip_ratio/low_mean": 0.0,
            "clip_ratio/high_mean": 0.0,
        }
    return {
        "ratio/mean": total / count,
        "ratio/max": largest,
        "clip_ratio/low_mean": low / count,
        "clip_ratio/high_mean": high / count,
    }
