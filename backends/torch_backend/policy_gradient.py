"""The policy loss over a batch of experiences: which of
them count, in what micro-batches, and what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offapi.episodes import Floats
from offapi.policy_loss import (
    Experience,
    PolicyLoss,
    Update,
    check_experiences,
    contributes,
    ratio_metrics,
)

from .losses import check_trainable, masked_logprobs
from .packing import packs
from .policy import Policy
from .policy_loss import policy_loss


def policy_gradient(policy: Policy, batch: Sequence[Experience], loss: PolicyLoss) -> Update:
    """See `Backend.policy_gradient`.

    What cannot contribute is not computed: its summand is exactly 0.
    """
    check_trainable(policy)
    check_experiences(batch, loss, policy.vocabulary)
    tokens = sum(sum(one.episode.mask) for one in batch)
    places = [i for i, one in enumerate(batch) if contributes(one, loss)]
    episodes = [batch[i].episode for i in places]
    found: list[Floats | None] = [None] * len(batch)
    total, computed, statistics = 0.0, 0, []
    for pack in packs(episodes, policy.spec.limits.micro_batch):
        logprobs_T = masked_logprobs(policy, pack, episodes, loss.temperature)
        members = [batch[places[i]] for i in pack.episodes]
        value, seen = policy_loss(
            logprobs_T,
            **_constants(members, logprobs_T, pack.counts),
            lengths=pack.counts,
            loss=loss,
            sequences=len(batch),
            tokens=tokens,
        )
        value.backward()  # type: ignore[no-untyped-call]
        total, computed = total + float(value.detach()), computed + len(logprobs_T)
        statistics.append(seen.cpu().numpy())
        for i, own_T in pack.split(logprobs_T.detach().cpu().numpy()).items():
            found[places[i]] = own_T
    metrics = {"loss": total, "tokens": float(computed), **ratio_metrics(statistics)}
    return Update(metrics, tuple(found))


def _constants(
    members: Sequence[Experience], logprobs_T: Tensor, counts: Sequence[int]
) -> dict[str, Any]:
    """What the loss is told beside the logprobs, on their device."""
    device = logprobs_T.device
    old_T = _end_to_end([one.old for one in members], logprobs_T, counts)
    start_T = logprobs_T if old_T is None else old_T
    advantages = [one.advantage for one in members]
    return {
        "old": old_T,
        "behaviour": _end_to_end([one.episode.behaviour for one in members], start_T, counts),
        "reference": _end_to_end([one.reference for one in members], logprobs_T, counts),
        "advantages": torch.tensor(advantages, dtype=torch.float32, device=device),
    }


def _end_to_end(
    arrays: Sequence[Floats | None], otherwise_T: Tensor, counts: Sequence[int]
) -> Tensor | None:
    """`arrays` joined, those that are missing taken
    from `otherwise_T` as constants; None where all are.
    """
    if all(array is None for array in arrays):
        return None
    device, parts = otherwise_T.device, []
    for array, part in zip(arrays, torch.split(otherwise_T.detach(), list(counts)), strict=True):
        given = None if array is None else torch.from_numpy(np.array(array, np.float32))
        parts.append(part if given is None else given.to(device))
    return torch.cat(parts)
