"""Logprobs at the masked positions alone, and the losses built on them.

The head over the vocabulary runs on rows of the completion mask in chunks, and each
chunk's Jacobian with respect to its hidden state is kept instead of its logits: D numbers a
row instead of V. Every loss is then a function of per-token logprobs. Left out: packing
across calls, and losses that need whole distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offapi.backend import By
from offapi.episodes import (
    Episode,
    Floats,
    Metrics,
    SamplingMask,
    check_learnable,
    check_scorable,
)
from offapi.errors import BackendError

from .packed_attention import Packed
from .packing import Pack, packs
from .policy import Policy


@dataclass(frozen=True)
class MaskRows:
    """Sampling masks of N rows: `ids` (K,) of the tokens left in row `rows` (K,),
    ascending; `limited_N` says which rows have a set.
    """

    ids: Tensor
    rows: Tensor
    limited_N: Tensor

    def apply(self, logits_RV: Tensor, start: int) -> Tensor:
        """The logits of the rows from `start` on, -inf outside their sets."""
        end = start + len(logits_RV)
        first, last = torch.searchsorted(
            self.rows, torch.tensor([start, end], device=logits_RV.device)
        )
        gone_RV = self.limited_N[start:end, None].expand(logits_RV.shape).clone()
        gone_RV[self.rows[first:last] - start, self.ids[first:last]] = False
        return logits_RV.masked_fill(gone_RV, float("-inf"))


def place_masks(
    masks: Sequence[SamplingMask | None], counts: Sequence[int], device: torch.device
) -> MaskRows | None:
    """The sets of episodes with `counts` rows each, end to end; None where no episode has any."""
    if all(mask is None for mask in masks):
        return None
    ids: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    for mask, count in zip(masks, counts, strict=True):
        ids.append(np.zeros(0, np.int32) if mask is None else mask.ids)
        sizes.append(np.zeros(count, np.int32) if mask is None else mask.counts)
    sizes_N = torch.from_numpy(np.concatenate(sizes)).to(device).long()
    rows = torch.repeat_interleave(torch.arange(len(sizes_N), device=device), sizes_N)
    return MaskRows(torch.from_numpy(np.concatenate(ids)).to(device).long(), rows, sizes_N > 0)


class SelectedLogprobs(torch.autograd.Function):
    """log softmax(h W^T / temperature)[target], shape (N,),
    in chunks of rows; over the tokens a sampling mask left where there is one.

    d logp / d h = (W[target] - softmax(h W^T / temperature) W) / temperature, kept as (N, D).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        targets_N: Tensor,
        temperature: float,
        chunk: int,
        masks: MaskRows | None,
    ) -> Tensor:
        wants = ctx.needs_input_grad[0]
        logprobs_N = torch.empty(len(targets_N), dtype=torch.float32, device=hidden_ND.device)
        jacobian_ND = torch.empty_like(hidden_ND) if wants else None
        for start in range(0, len(targets_N), chunk):
            rows = slice(start, start + chunk)
            logits_RV = (hidden_ND[rows] @ head_VD.T).float().div_(temperature)
            if masks is not None:
                logits_RV = masks.apply(logits_RV, start)
            picked_R = logits_RV.gather(1, targets_N[rows, None]).squeeze(1)
            logprobs_N[rows] = picked_R - logits_RV.logsumexp(-1)
            if jacobian_ND is not None:
                expected_RD = logits_RV.softmax(-1).to(head_VD.dtype) @ head_VD
                jacobian_ND[rows] = (head_VD[targets_N[rows]] - expected_RD) / temperature
        if jacobian_ND is not None:
            ctx.save_for_backward(jacobian_ND)
        return logprobs_N

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None, None, None]:
        (jacobian_ND,) = ctx.saved_tensors
        slope_ND = (gradients[0][:, None] * jacobian_ND).to(jacobian_ND.dtype)
        return slope_ND, None, None, None, None, None


def masked_logprobs(
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
    masks = place_masks([episodes[i].sampling_mask for i in pack.episodes], pack.counts, device)
    scored: Tensor = SelectedLogprobs.apply(hidden, policy.head, targets, temperature, chunk, masks)  # type: ignore[no-untyped-call]
    return scored


def score(policy: Policy, episodes: Sequence[Episode], by: By, temperature: float) -> list[Floats]:
    """See `Backend.score`."""
    check_scorable(episodes, policy.vocabulary, temperature)
    scored = [np.zeros(0, np.float32) for _ in episodes]
    places = [i for i, episode in enumerate(episodes) if any(episode.mask)]
    masked = [episodes[i] for i in places]
    with (
        policy.scored_by_reference() if by == "reference" else nullcontext(),
        torch.inference_mode(),
    ):
        for pack in packs(masked, policy.spec.limits.micro_batch):
            logprobs_N = masked_logprobs(policy, pack, masked, temperature).cpu().numpy()
            for i, logprobs_T in pack.split(logprobs_N).items():
                scored[places[i]] = logprobs_T
    return scored


def forward_backward(policy: Policy, batch: Sequence[Episode]) -> Metrics:
    """See `Backend.forward_backward`.

    The normaliser is the whole batch's, so any split gives one gradient.
    """
    check_trainable(policy)
    check_learnable(batch, policy.vocabulary)
    tokens = sum(sum(episode.mask) for episode in batch)
    total = 0.0
    for pack in packs(batch, policy.spec.limits.micro_batch):
        part = -masked_logprobs(policy, pack, batch).sum() / tokens
        part.backward()  # type: ignore[no-untyped-call]
        total += float(part.detach())
    return {"loss": total, "tokens": float(tokens)}


def check_trainable(policy: Policy) -> None:
    """Raise BackendError without an adapter to train."""
    if not policy.lora:
        raise BackendError(
            "this model was loaded without an adapter.",
            next_step="Load it with `lora` to train it.",
        )
