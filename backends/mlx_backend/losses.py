"""Masked logprobs of whole episodes, and the gradient of cross-entropy on them.

The prefix a micro-batch shares is computed once and stays in the graph. Logits exist at
masked positions alone, `logit_rows` of them at a time, and are never kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import mlx.core as mx
import numpy as np

from offapi.backend import Episode, Floats, Limits

from .batches import Line, MicroBatch, lines, micro_batches
from .cache import blocks, extend
from .numerics import log_sum_exp
from .policy import Policy

Gradients = dict[str, mx.array]


def masked_logprobs(policy: Policy, batch: MicroBatch, limits: Limits, temperature: float = 1.0) -> mx.array:
    """Logprobs (nats) of the masked tokens of all lines, one line after the other, fp32, shape (masked,)."""
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
    places = [row * width + at - 1 - batch.shared for row, line in enumerate(batch.lines) for at in line.masked]
    targets = mx.array([line.tokens[at] for line in batch.lines for at in line.masked])
    chosen = hidden.reshape(-1, hidden.shape[-1])[mx.array(places)]
    parts = []
    for chunk in (slice(i, i + limits.logit_rows) for i in range(0, len(places), limits.logit_rows)):
        head = mx.checkpoint(partial(_logprobs, policy=policy, targets=targets[chunk], temperature=temperature))
        parts.append(head(chosen[chunk]))
    return mx.concatenate(parts)


def _logprobs(hidden: mx.array, policy: Policy, targets: mx.array, temperature: float) -> mx.array:
    logits = policy.logits(hidden)
    logits = logits if temperature == 1.0 else logits / temperature
    return (mx.take_along_axis(logits, targets[:, None], axis=-1) - log_sum_exp(logits))[:, 0]


def score(policy: Policy, episodes: Sequence[Episode], limits: Limits, temperature: float) -> list[Floats]:
    """Logprobs of each episode's masked tokens; an empty array where none is."""
    scored: list[Floats] = [np.zeros(0, dtype=np.float32) for _ in episodes]
    for batch in micro_batches([line for line in lines(episodes) if line.masked], limits.train_tokens):
        flat = np.array(masked_logprobs(policy, batch, limits, temperature))
        ends = np.cumsum([len(line.masked) for line in batch.lines])
        for line, part in zip(batch.lines, np.split(flat, ends[:-1]), strict=True):
            scored[line.index] = part.copy()
    return scored


def learnable(episodes: Sequence[Episode]) -> list[Line]:
    """Raises ValueError for an empty batch, or an episode with nothing to learn."""
    found = lines(episodes)
    if not found:
        raise ValueError("a batch to train on needs at least one episode")
    for line in found:
        if not line.masked:
            raise ValueError(f"episode {episodes[line.index].id!r} has no masked tokens, so nothing to learn")
    return found


def cross_entropy(
    policy: Policy, episodes: Sequence[Episode], limits: Limits, gradients: Gradients
) -> tuple[float, int, Gradients]:
    """Loss (nats a masked token), masked tokens, and `gradients` with the loss's own added."""
    todo = learnable(episodes)
    total = sum(len(line.masked) for line in todo)
    parameters = policy.parameters()

    def share(candidate: Gradients, batch: MicroBatch) -> mx.array:
        policy.assign(candidate)
        return -masked_logprobs(policy, batch, limits).sum() / total

    loss = 0.0
    try:
        for batch in micro_batches(todo, limits.train_tokens):
            part, fresh = mx.value_and_grad(share)(parameters, batch)
            gradients = {name: gradients[name] + fresh[name] if name in gradients else fresh[name] for name in fresh}
            mx.eval(part, gradients)
            loss += float(np.array(part))
    finally:
        policy.assign(parameters)  # tracing left its own arrays in the layers
    return loss, total, gradients
