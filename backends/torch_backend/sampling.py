"""From logits to tokens: temperature, truncation, and the inverse CDF of the core's uniform."""

from __future__ import annotations

import torch
from torch import Tensor

from offapi.completions import Sampling

# tokens (R,), their logprobs (R,), and the sampling mask (R, V) if truncated
Drawn = tuple[Tensor, Tensor, Tensor | None]


def choose(logits_RV: Tensor, sampling: Sampling, uniforms_R: Tensor) -> Drawn:
    """Draw a token for each row, and return it with its behaviour logprob (nats).

    The third value says which tokens could be drawn (bool), if the sampling is truncated.
    """
    logits_RV = logits_RV.float()
    if sampling.temperature == 0:
        tokens_R = logits_RV.argmax(-1)
        chosen_R = logits_RV.gather(1, tokens_R[:, None])[:, 0]
        return tokens_R, chosen_R - logits_RV.logsumexp(-1), None
    logprobs_RV = truncate(logits_RV / sampling.temperature, sampling).log_softmax(-1)
    probabilities_RV = logprobs_RV.exp()
    tokens_R = first_beyond(probabilities_RV.cumsum(-1), probabilities_RV > 0, uniforms_R)
    left_RV = logprobs_RV.isfinite() if sampling.truncated else None
    return tokens_R, logprobs_RV.gather(1, tokens_R[:, None])[:, 0], left_RV


def first_beyond(reached_RV: Tensor, possible_RV: Tensor, uniforms_R: Tensor) -> Tensor:
    """Return the first possible token (R,) whose cumulative probability exceeds its uniform.

    A parallel sum is rounded block by block: it can stop short of 1, or fall where nothing is
    added. So uniforms are scaled by the sum reached, and no token of probability 0 is drawn.
    """
    size = reached_RV.shape[-1]
    places_V = torch.arange(size, dtype=torch.int32, device=reached_RV.device)
    last_R = torch.where(possible_RV, places_V, 0).amax(-1)
    beyond_RV = possible_RV & (reached_RV > uniforms_R[:, None] * reached_RV[:, -1:])
    return torch.minimum(torch.where(beyond_RV, places_V, size).amin(-1), last_R).long()


def truncate(logits_RV: Tensor, sampling: Sampling) -> Tensor:
    """Set what top_k, then top_p, then min_p cut away to -inf.

    top_k and min_p keep all ties at an edge.
    """
    if 0 < sampling.top_k < logits_RV.shape[-1]:
        edge_R1 = logits_RV.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits_RV = logits_RV.masked_fill(logits_RV < edge_R1, float("-inf"))
    if sampling.top_p < 1:
        ordered_RV, places_RV = logits_RV.softmax(-1).sort(dim=-1, descending=True, stable=True)
        # A token stays while the mass before it is below top_p: the smallest set that reaches it.
        gone_RV = ordered_RV.cumsum(-1) - ordered_RV >= sampling.top_p
        gone_RV = torch.zeros_like(gone_RV).scatter(1, places_RV, gone_RV)
        logits_RV = logits_RV.masked_fill(gone_RV, float("-inf"))
    if sampling.min_p > 0:
        probabilities_RV = logits_RV.softmax(-1)
        edge_R1 = probabilities_RV.max(-1, keepdim=True).values * sampling.min_p
        logits_RV = logits_RV.masked_fill(probabilities_RV < edge_R1, float("-inf"))
    return logits_RV
