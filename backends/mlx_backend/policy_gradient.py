"""The policy loss over a batch of experiences: which of
them count, in what micro-batches, and what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from offapi.backend import Limits
from offapi.episodes import Floats
from offapi.policy_loss import (
    Experience,
    PolicyLoss,
    Update,
    check_experiences,
    contributes,
    ratio_metrics,
)

from .losses import Gradients, add_gradient, by_line, masked_logprobs
from .micro_batches import MicroBatch, lines, micro_batches
from .policy import Policy
from .policy_loss import policy_loss


class Totals(NamedTuple):
    """The normalisers: episodes and masked tokens of the whole batch."""

    sequences: int
    tokens: int


def policy_gradient(
    policy: Policy,
    batch: Sequence[Experience],
    limits: Limits,
    loss: PolicyLoss,
    gradients: Gradients,
) -> tuple[Update, Gradients]:
    """What was found, and `gradients` with the loss's own added. See `Backend.policy_gradient`."""
    check_experiences(batch, loss, policy.vocabulary)
    found = lines([one.episode for one in batch])
    totals = Totals(len(found), sum(len(line.masked) for line in found))
    todo = [line for line in found if contributes(batch[line.index], loss)]
    logprobs: list[Floats | None] = [None] * len(batch)
    value, parts = 0.0, []
    for micro in micro_batches(todo, limits.micro_batch):
        share = partial(
            _share, policy, micro, [batch[line.index] for line in micro.lines], limits, loss, totals
        )
        (part, stats, flat), gradients = add_gradient(policy, share, gradients)
        value += float(np.array(part))
        parts.append(np.array(stats, np.float64))
        for line, own in by_line(micro, flat):
            logprobs[line.index] = own
    computed = sum(len(line.masked) for line in todo)
    metrics = {"loss": value, "tokens": float(computed), **ratio_metrics(parts)}
    return Update(metrics, tuple(logprobs)), gradients


def _share(
    policy: Policy,
    micro: MicroBatch,
    batch: list[Experience],
    limits: Limits,
    loss: PolicyLoss,
    totals: Totals,
) -> tuple[mx.array, ...]:
    """The micro-batch's summand of the loss, its statistics and its logprobs."""
    lengths = [len(line.masked) for line in micro.lines]
    logprobs_T = masked_logprobs(policy, micro, limits, loss.temperature)
    old_T = _end_to_end([one.old for one in batch], logprobs_T, lengths)
    start_T = logprobs_T if old_T is None else old_T
    part, statistics = policy_loss(
        logprobs_T,
        old=old_T,
        behaviour=_end_to_end([one.episode.behaviour for one in batch], start_T, lengths),
        reference=_end_to_end([one.reference for one in batch], logprobs_T, lengths),
        advantages=mx.array([one.advantage for one in batch]),
        lengths=lengths,
        loss=loss,
        sequences=totals.sequences,
        tokens=totals.tokens,
    )
    return part, statistics, logprobs_T


def _end_to_end(
    arrays: Sequence[Floats | None], otherwise_T: mx.array, counts: Sequence[int]
) -> mx.array | None:
    """`arrays` joined, those that are missing taken
    from `otherwise_T` as constants; None where all are.
    """
    if all(array is None for array in arrays):
        return None
    ends = np.cumsum(counts)[:-1].tolist()
    parts = []
    for array, part in zip(arrays, mx.split(mx.stop_gradient(otherwise_T), ends), strict=True):
        parts.append(part if array is None else mx.array(np.array(array, np.float32)))
    return mx.concatenate(parts)
