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

import numpy as np
import torch
from torch import Tensor

from offapi.backend import By, Loss
from offapi.batching import Pack, packs
from offapi.episodes import Episode, Floats, Kept, Metrics
from offapi.errors import BackendError

from .packed_attention import Packed
from .policy import Policy


@dataclass(frozen=True)
class KeptRows:
    """`ids` (K,) of the tokens kept in row `rows` (K,),
    ascending; `limited` (N,) says which rows have a set.
    """

    ids: Tensor
    rows: Tensor
    limited: Tensor

    def mask(self, logits: Tensor, start: int) -> Tensor:
        """`logits` (n, V) of the rows from `start` on, -inf outside their sets."""
        first, last = torch.searchsorted(
            self.rows, torch.tensor([start, start + len(logits)], device=logits.device)
        )
        gone = self.limited[start : start + len(logits), None].expand(logits.shape).clone()
        gone[self.rows[first:last] - start, self.ids[first:last]] = False
        return logits.masked_fill(gone, float("-inf"))


def place_kept(
    kept: Sequence[Kept | None], counts: Sequence[int], device: torch.device
) -> KeptRows | None:
    """The sets of episodes with `counts` rows each, end to end; None where no episode has any."""
    if all(one is None for one in kept):
        return None
    ids: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    for one, count in zip(kept, counts, strict=True):
        ids.append(np.zeros(0, np.int32) if one is None else one.ids)
        sizes.append(np.zeros(count, np.int32) if one is None else one.counts)
    size = torch.from_numpy(np.concatenate(sizes)).to(device).long()
    rows = torch.repeat_interleave(torch.arange(len(size), device=device), size)
    return KeptRows(torch.from_numpy(np.concatenate(ids)).to(device).long(), rows, size > 0)


class SelectedLogprobs(torch.autograd.Function):
    """log softmax(h W^T / temperature)[target], shape (N,),
    in chunks of rows; over kept tokens where some are.

    d logp / d h = (W[target] - softmax(h W^T / temperature) W) / temperature, kept as (N, D).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        temperature: float,
        chunk: int,
        kept: KeptRows | None,
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


def logprobs(
    policy: Policy, pack: Pack, episodes: Sequence[Episode], temperature: float = 1.0
) -> Tensor:
    """Logprobs (nats) of the pack's targets in order, shape (N,), differentiable in the adapter."""
    device = policy.device
    layout = Packed(tuple((tree.shared, tree.lengths) for tree in pack.trees))
    tokens, positions = (
        torch.tensor([numbers], device=device) for numbers in (pack.tokens, pack.positions)
    )
    hidden = policy.hidden(tokens, positions, layout)[0, torch.tensor(pack.rows, device=device)]
    targets, chunk = torch.tensor(pack.targets, device=device), policy.spec.limits.logit_rows
    kept = place_kept([episodes[i].kept for i in pack.episodes], pack.counts, device)
    scored: Tensor = SelectedLogprobs.apply(hidden, policy.head, targets, temperature, chunk, kept)  # type: ignore[no-untyped-call]
    return scored


def score(policy: Policy, episodes: Sequence[Episode], by: By, temperature: float) -> list[Floats]:
    """See `Backend.score`."""
    found: dict[int, Floats] = {}
    with (
        policy.scored_by_reference() if by == "reference" else nullcontext(),
        torch.inference_mode(),
    ):
        for pack in packs(episodes, policy.spec.limits.micro_batch):
            values = logprobs(policy, pack, episodes, temperature).cpu().numpy()
            found.update(pack.split(values))
    return [found[i] for i in range(len(episodes))]


def forward_backward(policy: Policy, batch: Sequence[Episode], loss: Loss) -> Metrics:
    """See `Backend.forward_backward`.

    The normaliser is the whole batch's, so any split gives one gradient.
    """
    if loss != "cross_entropy":
        raise ValueError(f"unknown loss {loss!r}")
    check_trainable(policy)
    todo = list(packs(batch, policy.spec.limits.micro_batch))
    tokens = sum(len(pack.targets) for pack in todo)
    total = 0.0
    for part in _losses(policy, batch, todo, tokens):
        part.backward()  # type: ignore[no-untyped-call]
        total += float(part.detach())
    return {"loss": total, "tokens": float(tokens)}


def _losses(
    policy: Policy, batch: Sequence[Episode], todo: Sequence[Pack], tokens: int
) -> Iterator[Tensor]:
    for pack in todo:
        yield -logprobs(policy, pack, batch).sum() / tokens


def check_trainable(policy: Policy) -> None:
    """Raise BackendError without an adapter to train."""
    if not policy.lora:
        raise BackendError(
            "this model was loaded without an adapter.",
            next_step="Load it with `lora` to train it.",
        )
