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
from offapi.episodes import Floats, Metrics
from offapi.policy_loss import Experience, PolicyLoss, Update, check

from .losses import Gradients, add_gradient, by_line, learnable, masked_logprobs
from .micro_batches import Line, MicroBatch, micro_batches
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
    check(batch, loss)
    found = learnable([experience.episode for experience in batch])
    totals = Totals(len(found), sum(len(line.masked) for line in found))
    todo = [line for line in found if loss.beta > 0 or batch[line.index].advantage != 0]
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
    return Update(_metrics(value, todo, parts), tuple(logprobs)), gradients


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
    logprobs = masked_logprobs(policy, micro, limits, loss.temperature)
    old = _end_to_end([e.old for e in batch], lengths, logprobs)
    part, stats = policy_loss(
        logprobs,
        old=old,
        behaviour=_end_to_end(
            [e.episode.behaviour for e in batch], lengths, logprobs if old is None else old
        ),
        reference=_end_to_end([e.reference for e in batch], lengths, logprobs),
        advantages=mx.array([e.advantage for e in batch]),
        lengths=lengths,
        loss=loss,
        sequences=totals.sequences,
        tokens=totals.tokens,
    )
    return part, stats, logprobs


def _end_to_end(
    arrays: list[Floats | None], lengths: list[int], otherwise: mx.array
) -> mx.array | None:
    """`arrays` joined, those that are missing taken
    from `otherwise` as constants; None where all are.
    """
    if all(array is None for array in arrays):
        return None
    ends = np.cumsum(lengths)[:-1].tolist()
    parts = zip(arrays, mx.split(mx.stop_gradient(otherwise), ends), strict=True)
    return mx.concatenate([part if array is None else mx.array(array) for array, part in parts])


def _metrics(value: float, todo: Sequence[Line], parts: Sequence[np.ndarray]) -> Metrics:
    metrics = {"loss": value, "tokens": float(sum(len(line.masked) for line in todo))}
    if not parts:
        return metrics | {
            "ratio/mean": 1.0,
            "ratio/max": 1.0,
            "clip_ratio/low_mean": 0.0,
            "clip_ratio/high_mean": 0.0,
        }
    ratios, _, low, high, units = np.sum(parts, axis=0)
    return metrics | {
        "ratio/mean": float(ratios / units),
        "ratio/max": float(np.max(parts, axis=0)[1]),
        "clip_ratio/low_mean": float(low / units),
        "clip_ratio/high_mean": float(high / units),
    }
