"""Logprobs at the masked positions alone, and the gradient of the cross-entropy on them.

A micro-batch's shared prefix is computed once and stays in the graph. Logits exist at masked
positions alone, `logit_rows` of them at a time, and are never kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from offapi.activation_memory import head_rows
from offapi.episodes import (
    Episode,
    Floats,
    Metrics,
    Totals,
    check_learnable,
    check_scorable,
)
from offapi.model_spec import Limits

from . import full
from .cache import blocks, extend
from .head_slopes import by_slopes
from .linux_cpu.fast_exp import log_sum_exp
from .micro_batches import Line, MicroBatch, lines, micro_batches
from .policy import Policy

Gradients = dict[str, mx.array]
Share = Callable[[], tuple[mx.array, ...]]
MaskRows = tuple[mx.array, mx.array, mx.array]  # see _place_masks


def masked_logprobs(
    policy: Policy, batch: MicroBatch, limits: Limits, temperature: float = 1.0
) -> mx.array:
    """Return the logprobs (nats) of the masked tokens of all lines end to end, fp32, shape (T,).

    Where a line has a sampling mask they are over its sets, else over the vocabulary.
    """
    prefix = None
    if batch.shared:
        caches = blocks(None, policy.windows)
        policy.hidden(mx.array(batch.lines[0].tokens[: batch.shared])[None], caches)
        prefix = extend(None, caches)
    # The last token predicts nothing that is asked for, so no row computes it.
    rests = [line.tokens[batch.shared : -1] for line in batch.lines]
    width = max(map(len, rests))
    tokens_RL = mx.array([rest + (0,) * (width - len(rest)) for rest in rests])
    policy.check_length(batch.shared + width)
    packed = policy.implementation == "packed"
    hidden_RLD = policy.hidden(tokens_RL, blocks(prefix, policy.windows) if packed else None)
    places = [
        row * width + at - 1 - batch.shared
        for row, line in enumerate(batch.lines)
        for at in line.masked
    ]
    targets_T = mx.array([line.tokens[at] for line in batch.lines for at in line.masked])
    hidden_TD = hidden_RLD.reshape(-1, hidden_RLD.shape[-1])[mx.array(places)]
    left_T = _left(batch)
    parts: list[mx.array] = []
    most = head_rows(limits.logit_rows, policy.vocabulary)
    for start in range(0, len(places), most):
        rows = slice(start, start + most)
        masks = _place_masks(left_T[rows])
        head = partial(_logprobs, policy, targets_T[rows], masks, temperature)
        # One chunk after the other: MLX would hold the logits of all at once.
        own_RD = mx.depends([hidden_TD[rows]], parts[-1:])[0] if parts else hidden_TD[rows]
        parts.append(_differentiable(policy, head)(own_RD))
    return mx.concatenate(parts)


def _differentiable(
    policy: Policy, head: Callable[[mx.array], mx.array]
) -> Callable[[mx.array], mx.array]:
    """Return `head`, which keeps no logits for the backward pass, if there is to be one."""
    if not policy.checkpointing.differentiated:
        return head
    return full.checkpointed(policy.model, head) if policy.full else by_slopes(head)


def _left(batch: MicroBatch) -> list[NDArray[np.int32] | None]:
    """Return the ids that each masked token is drawn from, line after line; None: all of them."""
    sets: list[NDArray[np.int32] | None] = []
    for line in batch.lines:
        mask = line.sampling_mask
        if mask is None:
            sets += [None] * len(line.masked)
        else:
            sets += np.split(mask.ids, mask.counts.cumsum()[:-1])
    return sets


def _place_masks(left_R: Sequence[NDArray[np.int32] | None]) -> MaskRows | None:
    """Return row and id of each token left, and which rows have no set; None if no row has one."""
    if all(ids is None for ids in left_R):
        return None
    sets = [np.zeros(0, np.int32) if ids is None else ids for ids in left_R]
    rows = np.repeat(np.arange(len(sets)), [len(ids) for ids in sets])
    whole_R = mx.array([ids is None for ids in left_R])
    return mx.array(rows), mx.array(np.concatenate(sets)), whole_R[:, None]


def _logprobs(
    policy: Policy,
    targets_R: mx.array,
    masks: MaskRows | None,
    temperature: float,
    hidden_RD: mx.array,
) -> mx.array:
    logits_RV = policy.logits(hidden_RD)
    logits_RV = logits_RV if temperature == 1.0 else logits_RV / temperature
    if masks is not None:
        rows, ids, whole_R1 = masks
        seen_RV = mx.broadcast_to(whole_R1, logits_RV.shape)
        seen_RV[rows, ids] = True
        logits_RV = mx.where(seen_RV, logits_RV, -mx.inf)
    chosen_R1 = mx.take_along_axis(logits_RV, targets_R[:, None], axis=-1)
    return (chosen_R1 - log_sum_exp(logits_RV))[:, 0]


def score(
    policy: Policy, episodes: Sequence[Episode], limits: Limits, temperature: float
) -> list[Floats]:
    """See `Backend.score`."""
    check_scorable(episodes, policy.vocabulary, temperature)
    scored: list[Floats] = [np.zeros(0, dtype=np.float32) for _ in episodes]
    todo = [line for line in lines(episodes) if line.masked]
    for batch in micro_batches(todo, limits.micro_batch, policy.shares):
        with policy.checkpointing.ahead.held(batch.tokens):
            logprobs_T = masked_logprobs(policy, batch, limits, temperature)
            mx.eval(logprobs_T)
        for line, own_T in by_line(batch, logprobs_T):
            scored[line.index] = own_T
    return scored


def by_line(batch: MicroBatch, values_T: mx.array) -> Iterator[tuple[Line, Floats]]:
    """Yield each line with its part of an array that has one number per masked token."""
    ends = np.cumsum([len(line.masked) for line in batch.lines])
    parts = np.split(np.array(values_T), ends[:-1])
    for line, own_T in zip(batch.lines, parts, strict=True):
        yield line, own_T.copy()


def forward_backward(
    policy: Policy,
    batch: Sequence[Episode],
    limits: Limits,
    gradients: Gradients,
    whole: Totals | None = None,
) -> tuple[Metrics, Gradients]:
    """See `Backend.forward_backward`.

    Return its metrics, and `gradients` with the loss's own added.
    """
    check_learnable(batch, policy.vocabulary)
    todo = lines(batch)
    own = Totals.of(batch)
    tokens = (whole or own).tokens

    def share(micro: MicroBatch) -> tuple[mx.array]:
        return (-masked_logprobs(policy, micro, limits).sum() / tokens,)

    total = 0.0
    for micro in micro_batches(todo, limits.micro_batch, policy.shares):
        with policy.checkpointing.of(micro.tokens, bool(micro.shared)):
            (part,), gradients = add_gradient(policy, partial(share, micro), gradients)
        total += float(np.array(part))
    return {"loss": total, "tokens": float(own.tokens)}, gradients


def add_gradient(
    policy: Policy, share: Share, gradients: Gradients
) -> tuple[tuple[mx.array, ...], Gradients]:
    """Return what `share()` returns, and `gradients` with that of its first array (a scalar) added.

    All of it is computed.
    """
    rounded = policy.masters is not None
    parameters = full.weights_of(policy.model) if rounded else policy.parameters()
    assign = partial(full.assign, policy.model) if rounded else policy.assign
    policy.model.train()  # mlx-lm's recurrent layers: by operations that have a gradient

    def traced(candidate: Gradients) -> tuple[mx.array, ...]:
        assign(candidate)
        return share()

    try:
        values, own = mx.value_and_grad(traced)(parameters)
        own = full.rounded(own, "float32") if rounded else own
        gradients = {
            name: gradients[name] + own[name] if name in gradients else own[name] for name in own
        }
        mx.eval(values, gradients)
    finally:
        assign(parameters)  # tracing left its own arrays in the layers
        policy.model.eval()
    return values, gradients
