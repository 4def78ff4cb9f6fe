"""Logprobs at the masked positions alone, and the losses built on them.

The head over the vocabulary runs on rows of the completion mask in chunks, and each
chunk's Jacobian with respect to its hidden state is kept instead of its logits: D numbers a
row instead of V. Every loss is then a function of per-token logprobs. Left out: packing
across calls, and losses that need whole distributions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offapi.backend import By, Episode, Floats, Loss, Metrics
from offapi.batching import Pack, packs
from offapi.errors import BackendError
from offapi.objective import Experience, PolicyLoss, Update

from .cache import Packed
from .kept import KeptRows, place_kept
from .policy import Policy
from .policy_loss import policy_loss


class SelectedLogprobs(torch.autograd.Function):
    """log softmax(h W^T / temperature)[target], shape (N,), in chunks of rows; over kept tokens where some are.

    d logp / d h = (W[target] - softmax(h W^T / temperature) W) / temperature, kept as (N, D).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, chunk: int, kept: KeptRows | None
    ) -> Tensor:
        wants = ctx.needs_input_grad[0]
        logprobs = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        jacobian = torch.empty_like(hidden) if wants else None
        for start in range(0, len(targets), chunk):
            rows = slice(start, start + chunk)
            logits = (hidden[rows] @ head.T).float().div_(temperature)
            if kept is not None:
                logits = kept.mask(logits, start)
            picked = logits.gather(1, targets[rows, None]).squeeze(1)
            logprobs[rows] = picked - logits.logsumexp(-1)
            if jacobian is not None:
                expected = logits.softmax(-1).to(head.dtype) @ head
                jacobian[rows] = (head[targets[rows]] - expected) / temperature
        if jacobian is not None:
            ctx.save_for_backward(jacobian)
        return logprobs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None, None, None]:
        (jacobian,) = ctx.saved_tensors
        return (gradients[0][:, None] * jacobian).to(jacobian.dtype), None, None, None, None, None


def logprobs(policy: Policy, pack: Pack, episodes: Sequence[Episode], temperature: float = 1.0) -> Tensor:
    """Logprobs (nats) of the pack's targets in order, shape (N,), differentiable in the adapter."""
    device = policy.device
    layout = Packed(tuple((tree.shared, tree.lengths) for tree in pack.trees))
    tokens, positions = (torch.tensor([numbers], device=device) for numbers in (pack.tokens, pack.positions))
    hidden = policy.hidden(tokens, positions, layout)[0, torch.tensor(pack.rows, device=device)]
    targets, chunk = torch.tensor(pack.targets, device=device), policy.spec.limits.logit_rows
    kept = place_kept([episodes[i].kept for i in pack.episodes], pack.counts, device)
    scored: Tensor = SelectedLogprobs.apply(hidden, policy.head, targets, temperature, chunk, kept)  # type: ignore[no-untyped-call]
    return scored


def score(policy: Policy, episodes: Sequence[Episode], by: By, temperature: float) -> list[Floats]:
    """See `Backend.score`."""
    found: dict[int, Floats] = {}
    with policy.scored_by_reference() if by == "reference" else nullcontext(), torch.inference_mode():
        for pack in packs(episodes, policy.spec.limits.train_tokens):
            values = logprobs(policy, pack, episodes, temperature).cpu().numpy()
            found.update(pack.split(values))
    return [found[i] for i in range(len(episodes))]


def forward_backward(policy: Policy, batch: Sequence[Episode], loss: Loss) -> Metrics:
    """See `Backend.forward_backward`. The normaliser is the whole batch's, so any split gives one gradient."""
    if loss != "cross_entropy":
        raise ValueError(f"unknown loss {loss!r}")
    check_trainable(policy)
    todo = list(packs(batch, policy.spec.limits.train_tokens))
    tokens = sum(len(pack.targets) for pack in todo)
    total = 0.0
    for part in _losses(policy, batch, todo, tokens):
        part.backward()  # type: ignore[no-untyped-call]
        total += float(part.detach())
    return {"loss": total, "tokens": float(tokens)}


def _losses(policy: Policy, batch: Sequence[Episode], todo: Sequence[Pack], tokens: int) -> Iterator[Tensor]:
    for pack in todo:
        yield -logprobs(policy, pack, batch).sum() / tokens


def policy_gradient(policy: Policy, batch: Sequence[Experience], loss: PolicyLoss) -> Update:
    """See `Backend.policy_gradient`. What cannot contribute is not computed: its summand is exactly 0."""
    check_trainable(policy)
    tokens = sum(sum(one.episode.mask) for one in batch)
    live = [i for i, one in enumerate(batch) if one.advantage != 0 or loss.beta]
    found: dict[int, Floats] = {}
    total = 0.0
    statistics = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0])
    for pack in packs([batch[i].episode for i in live], policy.spec.limits.train_tokens):
        members = [batch[live[i]] for i in pack.episodes]
        current = logprobs(policy, pack, [batch[i].episode for i in live], loss.temperature)
        value, seen = policy_loss(
            current,
            old=_flat([one.old for one in members], pack, policy),
            behaviour=_flat([one.episode.behaviour for one in members], pack, policy),
            reference=_flat([one.reference for one in members], pack, policy),
            advantages=torch.tensor([one.advantage for one in members], dtype=torch.float32, device=policy.device),
            lengths=pack.counts,
            loss=loss,
            sequences=len(batch),
            tokens=tokens,
        )
        value.backward()  # type: ignore[no-untyped-call]
        total += float(value.detach())
        statistics = combine(statistics, seen.cpu())
        found |= {live[i]: part for i, part in pack.split(current.detach().cpu().numpy()).items()}
    kept = tuple(found.get(i) for i in range(len(batch)))
    return Update({"loss": total, "tokens": float(sum(map(len, found.values()))), **described(statistics)}, kept)


def check_trainable(policy: Policy) -> None:
    """Raise BackendError without an adapter to train."""
    if not policy.lora:
        raise BackendError("this model was loaded without an adapter.", next_step="Load it with `lora` to train it.")


def combine(one: Tensor, other: Tensor) -> Tensor:
    """Statistics of two parts: sums add up, the largest is the larger one."""
    both = one + other
    both[1] = torch.maximum(one[1], other[1])
    return both


def described(statistics: Tensor) -> Metrics:
    """Statistics of the whole batch by their names in the metrics."""
    total, largest, low, high, count = statistics.tolist()
    if not count:
        return {"ratio/mean": 1.0, "ratio/max": 1.0, "clip_ratio/low_mean": 0.0, "clip_ratio/high_mean": 0.0}
    return {
        "ratio/mean": total / count,
        "ratio/max": largest,
        "clip_ratio/low_mean": low / count,
        "clip_ratio/high_mean": high / count,
    }


def _flat(arrays: Sequence[Floats | None], pack: Pack, policy: Policy) -> Tensor | None:
    """Arrays of a pack's episodes end to end, (N,); None unless all have one."""
    known = [array for array in arrays if array is not None]
    if len(known) < len(arrays):
        return None
    if tuple(map(len, known)) != pack.counts:
        raise ValueError("an experience's logprobs do not fit its episode's completion mask")
    return torch.from_numpy(np.concatenate(known).astype(np.float32)).to(policy.device)
