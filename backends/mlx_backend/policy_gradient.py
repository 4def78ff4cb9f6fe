"""The policy loss over a batch of experiences: which count, in which micro-batches, and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import mlx.core as mx
import numpy as np

from offapi.episodes import Floats, Totals
from offapi.model_spec import Limits
from offapi.policy_loss import (
    Experience,
    PolicyLoss,
    Update,
    advantages_of,
    check_experiences,
    contributes,
    ratio_metrics,
)

from .losses import Gradients, add_gradient, by_line, masked_logprobs
from .micro_batches import MicroBatch, lines, micro_batches
from .policy import Policy
from .policy_loss import policy_loss


def policy_gradient(
    policy: Policy,
    batch: Sequence[Experience],
    limits: Limits,
    loss: PolicyLoss,
    gradients: Gradients,
    whole: Totals | None = None,
) -> tuple[Update, Gradients]:
    """See `Backend.policy_gradient`.

    Return its update, and `gradients` with the loss's own added. What cannot contribute is not
    computed: its term is exactly 0.
    """
    check_experiences(batch, loss, policy.vocabulary)
    everything = lines([experience.episode for experience in batch])
    totals = whole or Totals.of([experience.episode for experience in batch])
    todo = [line for line in everything if contributes(batch[line.index], loss)]
    logprobs: list[Floats | None] = [None] * len(batch)
    total, computed, statistics = 0.0, 0, []
    for micro in micro_batches(todo, limits.micro_batch, policy.shares):
        members = [batch[line.index] for line in micro.lines]
        share = partial(_share, policy, micro, members, limits, loss, totals)
        with policy.checkpointing.of(micro.tokens, bool(micro.shared)):
            values, gradients = add_gradient(policy, share, gradients)
        part, part_statistics, logprobs_T = values
        total, computed = total + float(np.array(part)), computed + logprobs_T.size
        statistics.append(np.array(part_statistics, np.float64))
        for line, own_T in by_line(micro, logprobs_T):
            logprobs[line.index] = own_T
    metrics = {"loss": total, "tokens": float(computed), **ratio_metrics(statistics)}
    return Update(metrics, tuple(logprobs)), gradients


def _share(
    policy: Policy,
    micro: MicroBatch,
    members: list[Experience],
    limits: Limits,
    loss: PolicyLoss,
    totals: Totals,
) -> tuple[mx.array, ...]:
    """Return the micro-batch's term of the loss, its statistics and its logprobs."""
    counts = [len(line.masked) for line in micro.lines]
    logprobs_T = masked_logprobs(policy, micro, limits, loss.temperature)
    old_T = _end_to_end([member.old for member in members], logprobs_T, counts)
    start_T = logprobs_T if old_T is None else old_T
    behaviour = [member.episode.behaviour for member in members]
    advantages_U = mx.array(advantages_of(members, counts, loss))
    part, statistics = policy_loss(
        logprobs_T,
        old_T=old_T,
        behaviour_T=_end_to_end(behaviour, start_T, counts),
        reference_T=_end_to_end([member.reference for member in members], logprobs_T, counts),
        advantages_U=advantages_U,
        lengths=counts,
        loss=loss,
        sequences=totals.sequences,
        tokens=totals.tokens,
    )
    return part, statistics, logprobs_T


def _end_to_end(
    arrays: Sequence[Floats | None], default_T: mx.array, counts: Sequence[int]
) -> mx.array | None:
    """Join `arrays`, with constants from `default_T` for missing ones; None if all are missing."""
    if all(array is None for array in arrays):
        return None
    defaults = mx.split(mx.stop_gradient(default_T), np.cumsum(counts)[:-1].tolist())
    parts = []
    for array, part_T in zip(arrays, defaults, strict=True):
        given_T = None if array is None else mx.array(np.array(array, np.float32))
        parts.append(part_T if given_T is None else given_T)
    return mx.concatenate(parts)
