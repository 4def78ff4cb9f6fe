"""Masked logprobs of whole episodes, and the gradient of cross-entropy on them.

The prefix a micro-batch shares is computed once and stays in the graph. Logits exist at
masked positions alone, `logit_rows` of them at a time, and are never kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from offapi.backend import Limits
from offapi.episodes import Episode, Floats, check_learnable, check_scorable

from .cache import blocks, extend
from .linux_cpu.fast_exp import log_sum_exp
from .micro_batches import Line, MicroBatch, lines, micro_batches
from .policy import Policy

Gradients = dict[str, mx.array]
Share = Callable[[], tuple[mx.array, ...]]
Pairs = tuple[mx.array, mx.array, mx.array]  # see _pairs


def masked_logprobs(
    policy: Policy, batch: MicroBatch, limits: Limits, temperature: float = 1.0
) -> mx.array:
    """Logprobs (nats) of the masked tokens of all lines,
    one line after the other, fp32, shape (masked,).

    Over the tokens that its sampling mask left where a line has one, else over the vocabulary.
    """
    prefix = None
    if batch.shared:
        caches = blocks(None, policy.layers)
        policy.hidden(mx.array(batch.lines[0].tokens[: batch.shared])[None], caches)
        prefix = extend(None, caches)
    # The last token predicts nothing that is asked for, so no row computes it.
    rests = [line.tokens[batch.shared : -1] for line in batch.lines]
    width = max(map(len, rests))
    tokens = mx.array([rest + (0,) * (width - len(rest)) for rest in rests])
    hidden = policy.hidden(tokens, blocks(prefix, policy.layers))
    places = [
        row * width + at - 1 - batch.shared
        for row, line in enumerate(batch.lines)
        for at in line.masked
    ]
    targets = mx.array([line.tokens[at] for line in batch.lines for at in line.masked])
    chosen = hidden.reshape(-1, hidden.shape[-1])[mx.array(places)]
    left_T = _left(batch)
    parts = []
    for chunk in (
        slice(i, i + limits.logit_rows) for i in range(0, len(places), limits.logit_rows)
    ):
        head = partial(_logprobs, policy, targets[chunk], _pairs(left_T[chunk]), temperature)
        parts.append(mx.checkpoint(head)(chosen[chunk]))
    return mx.concatenate(parts)


def _left(batch: MicroBatch) -> list[NDArray[np.int32] | None]:
    """The ids each masked token is drawn from, line after line; None: the whole vocabulary."""
    sets: list[NDArray[np.int32] | None] = []
    for line in batch.lines:
        mask = line.sampling_mask
        if mask is None:
            sets += [None] * len(line.masked)
        else:
            sets += np.split(mask.ids, mask.counts.cumsum()[:-1])
    return sets


def _pairs(left_R: Sequence[NDArray[np.int32] | None]) -> Pairs | None:
    """Row and id of all that is left, and which rows have all; None where all of them do."""
    if all(ids is None for ids in left_R):
        return None
    sets = [np.zeros(0, np.int32) if ids is None else ids for ids in left_R]
    rows = np.repeat(np.arange(len(sets)), [len(ids) for ids in sets])
    return (
        mx.array(rows),
        mx.array(np.concatenate(sets)),
        mx.array([ids is None for ids in left_R])[:, None],
    )


def _logprobs(
    policy: Policy,
    targets_R: mx.array,
    left: Pairs | None,
    temperature: float,
    hidden_RD: mx.array,
) -> mx.array:
    logits_RV = policy.logits(hidden_RD)
    logits_RV = logits_RV if temperature == 1.0 else logits_RV / temperature
    if left is not None:
        rows, ids, whole_R1 = left
        seen_RV = mx.broadcast_to(whole_R1, logits_RV.shape)
        seen_RV[rows, ids] = True
        logits_RV = mx.where(seen_RV, logits_RV, -mx.inf)
    chosen_R1 = mx.take_along_axis(logits_RV, targets_R[:, None], axis=-1)
    return (chosen_R1 - log_sum_exp(logits_RV))[:, 0]


def score(
    policy: Policy, episodes: Sequence[Episode], limits: Limits, temperature: float
) -> list[Floats]:
    """Logprobs of each episode's masked tokens; an empty array where none is."""
    check_scorable(episodes, policy.vocabulary, temperature)
    scored: list[Floats] = [np.zeros(0, dtype=np.float32) for _ in episodes]
    todo = [line for line in lines(episodes) if line.masked]
    for batch in micro_batches(todo, limits.micro_batch):
        for line, part in by_line(batch, masked_logprobs(policy, batch, limits, temperature)):
            scored[line.index] = part
    return scored


def by_line(batch: MicroBatch, flat: mx.array) -> Iterator[tuple[Line, Floats]]:
    """Each line with its share of an array that has one number a masked token."""
    ends = np.cumsum([len(line.masked) for line in batch.lines])
    for line, part in zip(batch.lines, np.split(np.array(flat), ends[:-1]), strict=True):
        yield line, part.copy()


def cross_entropy(
    policy: Policy, episodes: Sequence[Episode], limits: Limits, gradients: Gradients
) -> tuple[float, int, Gradients]:
    """Loss (nats a masked token), masked tokens, and `gradients` with the loss's own added."""
    check_learnable(episodes, policy.vocabulary)
    todo = lines(episodes)
    total = sum(len(line.masked) for line in todo)

    def share(batch: MicroBatch) -> tuple[mx.array]:
        return (-masked_logprobs(policy, batch, limits).sum() / total,)

    loss = 0.0
    for batch in micro_batches(todo, limits.micro_batch):
        (part,), gradients = add_gradient(policy, partial(share, batch), gradients)
        loss += float(np.array(part))
    return loss, total, gradients


def add_gradient(
    policy: Policy, share: Share, gradients: Gradients
) -> tuple[tuple[mx.array, ...], Gradients]:
    """What `share()` returns, and `gradients` with that
    of its first array (a scalar) added; all computed.
    """
    parameters = policy.parameters()

    def traced(candidate: Gradients) -> tuple[mx.array, ...]:
        policy.assign(candidate)
        return share()

    try:
        found, fresh = mx.value_and_grad(traced)(parameters)
        gradients = {
            name: gradients[name] + fresh[name] if name in gradients else fresh[name]
            for name in fresh
        }
        mx.eval(found, gradients)
    finally:
        policy.assign(parameters)  # tracing left its own arrays in the layers
    return found, gradients
