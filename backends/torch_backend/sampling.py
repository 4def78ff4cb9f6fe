"""From logits to tokens: temperature, truncation,
and the inverse CDF of a uniform drawn by the core.
"""

from __future__ import annotations

import torch
from torch import Tensor

from offapi.backend import Sampling

Drawn = tuple[Tensor, Tensor, Tensor | None]


def choose(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> Drawn:
    """Tokens (rows,) and their behaviour logprobs
    (rows,) from logits (rows, V) and uniforms (rows,).

    Third, where the sampling is truncated, which tokens could be drawn: bool (rows, V).
    """
    logits = logits.float()
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1), None
    logprobs = truncate(logits / sampling.temperature, sampling).log_softmax(-1)
    probabilities = logprobs.exp()
    tokens = first_beyond(probabilities.cumsum(-1), probabilities > 0, uniforms)
    kept = logprobs.isfinite() if sampling.truncated else None
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0], kept


def first_beyond(reached: Tensor, possible: Tensor, uniforms: Tensor) -> Tensor:
    """The first possible token (rows,) whose cumulative
    probability `reached` (rows, V) exceeds its uniform.

    A parallel sum is rounded block by block: it can stop short of 1, or fall where nothing is
    added. So uniforms are scaled by what it reached, and no token of probability 0 is drawn.
    """
    places = torch.arange(reached.shape[-1], dtype=torch.int32, device=reached.device)
    last = torch.where(possible, places, 0).amax(-1)
    beyond = possible & (reached > uniforms[:, None] * reached[:, -1:])
    return torch.minimum(torch.where(beyond, places, reached.shape[-1]).amin(-1), last).long()


def truncate(logits: Tensor, sampling: Sampling) -> Tensor:
    """Set what top_k, then top_p, then min_p cut away to -inf.

    Ties at an edge are all kept by top_k and min_p.
    """
    if 0 < sampling.top_k < logits.shape[-1]:
        edge = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < edge, float("-inf"))
    if sampling.top_p < 1:
        ordered, places = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
        # A token stays while the mass before it is under top_p: the smallest set that reaches it.
        gone = ordered.cumsum(-1) - ordered >= sampling.top_p
        logits = logits.masked_fill(torch.zeros_like(gone).scatter(1, places, gone), float("-inf"))
    if sampling.min_p > 0:
        probabilities = logits.softmax(-1)
        edge = probabilities.max(-1, keepdim=True).values * sampling.min_p
        logits = logits.masked_fill(probabilities < edge, float("-inf"))
    return logits
