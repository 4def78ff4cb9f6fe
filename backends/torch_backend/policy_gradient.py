"""The policy loss over a batch of experiences: which count, in which micro-batches, and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offapi.episodes import Floats, Totals
from offapi.policy_loss import (
    Experience,
    PolicyLoss,
    Update,
    advantages_of,
    check_experiences,
    contributes,
    ratio_metrics,
)

from .losses import check_trainable, masked_logprobs, micro_batches
from .policy import Policy
from .policy_loss import policy_loss


def policy_gradient(
    policy: Policy, batch: Sequence[Experience], loss: PolicyLoss, whole: Totals | None = None
) -> Update:
    """See `Backend.policy_gradient`.

    What cannot contribute is not computed: its term is exactly 0.
    """
    check_trainable(policy)
    check_experiences(batch, loss, policy.vocabulary)
    whole = whole or Totals.of([experience.episode for experience in batch])
    places = [i for i, experience in enumerate(batch) if contributes(experience, loss)]
    episodes = [batch[i].episode for i in places]
    logprobs: list[Floats | None] = [None] * len(batch)
    total, computed, statistics = 0.0, 0, []
    for pack in micro_batches(policy, episodes):
        members = [batch[places[i]] for i in pack.episodes]
        with policy.step(backward=True), policy.checkpointing.of(len(pack.tokens)):
            logprobs_T = masked_logprobs(policy, pack, episodes, loss.temperature)
            part, part_statistics = policy_loss(
                logprobs_T,
                **_constants(members, logprobs_T, pack.counts, loss),
                lengths=pack.counts,
                loss=loss,
                sequences=whole.sequences,
                tokens=whole.tokens,
            )
            part.backward()  # type: ignore[no-untyped-call]
        total, computed = total + float(part.detach()), computed + len(logprobs_T)
        statistics.append(part_statistics.cpu().numpy())
        for i, own_T in pack.split(logprobs_T.detach().cpu().numpy()).items():
            logprobs[places[i]] = own_T
    metrics = {"loss": total, "tokens": float(computed), **ratio_metrics(statistics)}
    return Update(metrics, tuple(logprobs))


def _constants(
    members: Sequence[Experience], logprobs_T: Tensor, counts: Sequence[int], loss: PolicyLoss
) -> dict[str, Any]:
    """Return what the loss needs besides the logprobs, on their device."""
    device = logprobs_T.device
    old_T = _end_to_end([member.old for member in members], logprobs_T, counts)
    start_T = logprobs_T if old_T is None else old_T
    behaviour = [member.episode.behaviour for member in members]
    return {
        "old_T": old_T,
        "behaviour_T": _end_to_end(behaviour, start_T, counts),
        "reference_T": _end_to_end([member.reference for member in members], logprobs_T, counts),
        "advantages_U": torch.from_numpy(advantages_of(members, counts, loss)).to(device),
    }


def _end_to_end(
    arrays: Sequence[Floats | None], default_T: Tensor, counts: Sequence[int]
) -> Tensor | None:
    """Join `arrays`, with constants from `default_T` for missing ones; None if all are missing."""
    if all(array is None for array in arrays):
        return None
    defaults = torch.split(default_T.detach(), list(counts))
    parts = []
    for array, part_T in zip(arrays, defaults, strict=True):
        given_T = None if array is None else torch.from_numpy(np.array(array, np.float32))
        parts.append(part_T if given_T is None else given_T.to(default_T.device))
    return torch.cat(parts)
