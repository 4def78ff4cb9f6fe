"""Logprobs at the masked positions alone, and the losses built on them.

The head over the vocabulary runs on rows of the completion mask in chunks, and each
chunk's Jacobian with respect to its hidden state is kept instead of its logits: D numbers a
row instead of V. Every loss is then a function of per-token logprobs. Left out: packing
across calls, and losses that need whole distributions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from offapi.backend import By, Episode, Floats, Loss, Metrics
from offapi.batching import Pack, packs
from offapi.errors import BackendError

from .cache import Packed
from .policy import Policy


@dataclass(frozen=True)
class Placed:
    """A pack on the device: tokens and positions (1, T), rows to score (N,) and their targets (N,)."""

    tokens: Tensor
    positions: Tensor
    rows: Tensor
    targets: Tensor
    layout: Packed


class SelectedLogprobs(torch.autograd.Function):
    """log softmax(h W^T / temperature)[target], shape (N,), in chunks of rows.

    d logp / d h = (W[target] - softmax(h W^T / temperature) W) / temperature, kept as (N, D).
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, chunk: int) -> Tensor:
        wants = ctx.needs_input_grad[0]
        logprobs = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        jacobian = torch.empty_like(hidden) if wants else None
        for start in range(0, len(targets), chunk):
            rows = slice(start, start + chunk)
            logits = (hidden[rows] @ head.T).float().div_(temperature)
            picked = logits.gather(1, targets[rows, None]).squeeze(1)
            logprobs[rows] = picked - logits.logsumexp(-1)
            if jacobian is not None:
                expected = logits.softmax(-1).to(head.dtype) @ head
                jacobian[rows] = (head[targets[rows]] - expected) / temperature
        if jacobian is not None:
            ctx.save_for_backward(jacobian)
        return logprobs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None, None]:
        (jacobian,) = ctx.saved_tensors
        return (gradients[0][:, None] * jacobian).to(jacobian.dtype), None, None, None, None


def place(pack: Pack, device: torch.device) -> Placed:
    """Lay `pack` out on `device`."""
    return Placed(
        tokens=torch.tensor([pack.tokens], device=device),
        positions=torch.tensor([pack.positions], device=device),
        rows=torch.tensor(pack.rows, device=device),
        targets=torch.tensor(pack.targets, device=device),
        layout=Packed(lengths=pack.lengths, shared=pack.shared),
    )


def logprobs(policy: Policy, pack: Pack, temperature: float = 1.0) -> Tensor:
    """Logprobs (nats) of the pack's targets in order, shape (N,), differentiable in the adapter."""
    placed = place(pack, policy.device)
    hidden = policy.hidden(placed.tokens, placed.positions, placed.layout)[0, placed.rows]
    chunk = policy.spec.limits.logit_rows
    scored: Tensor = SelectedLogprobs.apply(hidden, policy.head, placed.targets, temperature, chunk)  # type: ignore[no-untyped-call]
    return scored


def score(policy: Policy, episodes: Sequence[Episode], by: By, temperature: float) -> list[Floats]:
    """See `Backend.score`."""
    found: dict[int, Floats] = {}
    with torch.inference_mode(), policy.scored_by_reference() if by == "reference" else nullcontext():
        for pack in packs(episodes, policy.spec.limits.train_tokens):
            values = logprobs(policy, pack, temperature).cpu().numpy()
            found.update(pack.split(values))
    return [found[i] for i in range(len(episodes))]


def forward_backward(policy: Policy, batch: Sequence[Episode], loss: Loss) -> Metrics:
    """See `Backend.forward_backward`. The normaliser is the whole batch's, so any split gives one gradient."""
    if loss != "cross_entropy":
        raise ValueError(f"unknown loss {loss!r}")
    if not policy.lora:
        raise BackendError("this model was loaded without an adapter.", next_step="Load it with `lora` to train it.")
    todo = list(packs(batch, policy.spec.limits.train_tokens))
    tokens = sum(len(pack.targets) for pack in todo)
    total = 0.0
    for part in _losses(policy, todo, tokens):
        part.backward()  # type: ignore[no-untyped-call]
        total += float(part.detach())
    return {"loss": total, "tokens": float(tokens)}


def _losses(policy: Policy, todo: Sequence[Pack], tokens: int) -> Iterator[Tensor]:
    for pack in todo:
        yield -logprobs(policy, pack).sum() / tokens
