"""Logprobs at the masked positions alone, and the losses built on them.

The head over the vocabulary runs on the masked positions in chunks. Each chunk keeps its Jacobian
with respect to the hidden state instead of its logits: D numbers per token instead of V. A head
that is more than a matrix is computed again in the backward pass instead. Every loss is then a
function of per-token logprobs. Left out: packing across calls, and losses that need whole
distributions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from offapi.backend import By
from offapi.episodes import (
    Episode,
    Floats,
    Metrics,
    SamplingMask,
    Totals,
    check_learnable,
    check_scorable,
)
from offapi.errors import BackendError

from .library_forward import library_hidden
from .packed_attention import Packed
from .packing import Pack, equal_rows, packs
from .policy import Policy


@dataclass(frozen=True)
class MaskRows:
    """Sampling masks of T tokens.

    `ids` (K,) are all tokens left, ascending at each place, and `rows` (K,) the places they belong
    to; `limited_T` says which places have a set.
    """

    ids: Tensor
    rows: Tensor
    limited_T: Tensor

    def apply(self, logits_RV: Tensor, start: int) -> Tensor:
        """Return the logits of the rows from `start` on, -inf outside their sets."""
        end = start + len(logits_RV)
        first, last = torch.searchsorted(
            self.rows, torch.tensor([start, end], device=logits_RV.device)
        )
        gone_RV = self.limited_T[start:end, None].expand(logits_RV.shape).clone()
        gone_RV[self.rows[first:last] - start, self.ids[first:last]] = False
        return logits_RV.masked_fill(gone_RV, float("-inf"))


def place_masks(
    masks: Sequence[SamplingMask | None], counts: Sequence[int], device: torch.device
) -> MaskRows | None:
    """Lay the sets of episodes with `counts` tokens each end to end; None if no episode has any."""
    if all(mask is None for mask in masks):
        return None
    ids: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    for mask, count in zip(masks, counts, strict=True):
        ids.append(np.zeros(0, np.int32) if mask is None else mask.ids)
        sizes.append(np.zeros(count, np.int32) if mask is None else mask.counts)
    sizes_T = torch.from_numpy(np.concatenate(sizes)).to(device).long()
    rows = torch.repeat_interleave(torch.arange(len(sizes_T), device=device), sizes_T)
    return MaskRows(torch.from_numpy(np.concatenate(ids)).to(device).long(), rows, sizes_T > 0)


class SelectedLogprobs(torch.autograd.Function):
    """log softmax(h W^T / temperature)[target], shape (T,), computed in chunks of tokens.

    Where a token has a sampling mask, the softmax is over its set. d logp / d h = (W[target] -
    softmax(h W^T / temperature) W) / temperature, kept as (T, D).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: Tensor,
        head_VD: Tensor,
        targets_T: Tensor,
        temperature: float,
        chunk: int,
        masks: MaskRows | None,
    ) -> Tensor:
        wants = ctx.needs_input_grad[0]
        logprobs_T = torch.empty(len(targets_T), dtype=torch.float32, device=hidden_TD.device)
        jacobian_TD = torch.empty_like(hidden_TD) if wants else None
        for start in range(0, len(targets_T), chunk):
            rows = slice(start, start + chunk)
            logits_RV = (hidden_TD[rows] @ head_VD.T).float().div_(temperature)
            if masks is not None:
                logits_RV = masks.apply(logits_RV, start)
            picked_R = logits_RV.gather(1, targets_T[rows, None]).squeeze(1)
            logprobs_T[rows] = picked_R - logits_RV.logsumexp(-1)
            if jacobian_TD is not None:
                expected_RD = logits_RV.softmax(-1).to(head_VD.dtype) @ head_VD
                jacobian_TD[rows] = (head_VD[targets_T[rows]] - expected_RD) / temperature
        if jacobian_TD is not None:
            ctx.save_for_backward(jacobian_TD)
        return logprobs_T

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None, None, None]:
        (jacobian_TD,) = ctx.saved_tensors
        slope_TD = (gradients[0][:, None] * jacobian_TD).to(jacobian_TD.dtype)
        return slope_TD, None, None, None, None, None


def masked_logprobs(
    policy: Policy, pack: Pack, episodes: Sequence[Episode], temperature: float = 1.0
) -> Tensor:
    """Return the logprobs (nats) of the pack's targets in order, shape (T,).

    They are differentiable in the adapter.
    """
    device = policy.device
    targets_T = torch.tensor(pack.targets, device=device)
    hidden_TD = hidden_of_pack(policy, pack)
    masks = place_masks([episodes[i].sampling_mask for i in pack.episodes], pack.counts, device)
    chunk, head_VD = policy.spec.limits.logit_rows, policy.head
    if head_VD is None or head_VD.requires_grad:
        return recomputed_logprobs(policy, hidden_TD, targets_T, temperature, masks)
    logprobs_T: Tensor = SelectedLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_TD, head_VD, targets_T, temperature, chunk, masks
    )
    return logprobs_T


def hidden_of_pack(policy: Policy, pack: Pack) -> Tensor:
    """Return the hidden states that predict the pack's targets, (T, D)."""
    rows_T = torch.tensor(pack.rows, device=policy.device)
    tokens_1L = torch.tensor([pack.tokens], device=policy.device)
    if policy.implementation == "library":
        hidden_RLD = library_hidden(policy.model, tokens_1L.view(len(pack.trees), -1))
        return hidden_RLD.flatten(0, 1)[rows_T]
    layout = Packed(tuple((tree.shared, tree.lengths) for tree in pack.trees))
    positions_1L = torch.tensor([pack.positions], device=policy.device)
    return policy.hidden(tokens_1L, positions_1L, layout)[0, rows_T]


def recomputed_logprobs(
    policy: Policy,
    hidden_TD: Tensor,
    targets_T: Tensor,
    temperature: float,
    masks: MaskRows | None,
) -> Tensor:
    """Return what `SelectedLogprobs` does, for a head that is more than a matrix, or trained.

    The backward pass computes the head again, chunk by chunk, instead of keeping the logits.
    """

    def part(hidden_RD: Tensor, start: int) -> Tensor:
        logits_RV = policy.logits(hidden_RD).float() / temperature
        if masks is not None:
            logits_RV = masks.apply(logits_RV, start)
        own_R1 = targets_T[start : start + len(hidden_RD), None]
        return logits_RV.gather(1, own_R1)[:, 0] - logits_RV.logsumexp(-1)

    chunk = policy.spec.limits.logit_rows
    parts = [
        checkpoint(part, hidden_TD[start : start + chunk], start, use_reentrant=False)
        for start in range(0, len(targets_T), chunk)
    ]
    return torch.cat(parts)


def micro_batches(policy: Policy, episodes: Sequence[Episode]) -> Iterator[Pack]:
    """Yield the micro-batches that `masked_logprobs` takes."""
    lay = packs if policy.implementation == "packed" else equal_rows
    return lay(episodes, policy.spec.limits.micro_batch)


def score(policy: Policy, episodes: Sequence[Episode], by: By, temperature: float) -> list[Floats]:
    """See `Backend.score`."""
    check_scorable(episodes, policy.vocabulary, temperature)
    scored = [np.zeros(0, np.float32) for _ in episodes]
    places = [i for i, episode in enumerate(episodes) if any(episode.mask)]
    masked = [episodes[i] for i in places]
    with (
        policy.scored_by_reference() if by == "reference" else nullcontext(),
        policy.without_gradients(),
    ):
        for pack in micro_batches(policy, masked):
            with policy.step():
                logprobs_T = masked_logprobs(policy, pack, masked, temperature).cpu().numpy()
            for i, own_T in pack.split(logprobs_T).items():
                scored[places[i]] = own_T
    return scored


def forward_backward(
    policy: Policy, batch: Sequence[Episode], whole: Totals | None = None
) -> Metrics:
    """See `Backend.forward_backward`.

    The normaliser is the whole batch's, so any split gives the same gradient.
    """
    check_trainable(policy)
    check_learnable(batch, policy.vocabulary)
    own = Totals.of(batch)
    tokens = (whole or own).tokens
    total = 0.0
    for pack in micro_batches(policy, batch):
        with policy.step(backward=True), policy.checkpointing.of(len(pack.tokens)):
            part = -masked_logprobs(policy, pack, batch).sum() / tokens
            part.backward()  # type: ignore[no-untyped-call]
        total += float(part.detach())
    return {"loss": total, "tokens": float(own.tokens)}


def check_trainable(policy: Policy) -> None:
    """Raise BackendError if there is no adapter to train."""
    if not policy.lora:
        raise BackendError(
            "this model was loaded without an adapter.",
            next_step="Load it with `lora` to train it.",
        )
