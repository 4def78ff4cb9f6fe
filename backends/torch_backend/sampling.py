"""From logits to tokens: temperature, truncation, and the inverse CDF of the core's uniform."""

from __future__ import annotations

from math import log
from typing import NamedTuple

import torch
from torch import Tensor

from offapi.completions import Sampling

from .matching import Allowed


class Drawn(NamedTuple):
    """A token for each of R rows, its behaviour logprob, and what was asked for besides."""

    tokens_R: Tensor
    logprobs_R: Tensor
    left_RV: Tensor | None = None  # what could be drawn, if something was cut away
    signals_R2: Tensor | None = None  # free logprob and margin (see `offapi.engine.NewToken`)
    top: tuple[Tensor, Tensor] | None = None  # the likeliest tokens and their free logprobs, (R, K)

    def first(self, rows: int) -> Drawn:
        """Return what belongs to the first `rows` rows; captured steps have no `top`."""
        left_RV, signals_R2 = (None if part is None else part[:rows] for part in self[2:4])
        return Drawn(self.tokens_R[:rows], self.logprobs_R[:rows], left_RV, signals_R2)


def choose(
    logits_RV: Tensor,
    sampling: Sampling,
    uniforms_R: Tensor,
    allowed: Allowed | None = None,
) -> Drawn:
    """Draw a token for each row, and return it with its behaviour logprob (nats).

    What is not `allowed` is forbidden first; greedy sampling takes the token of the row's rank.
    """
    logits_RV = logits_RV.float()
    free_RV = logits_RV
    if allowed is not None:
        logits_RV = allowed.forbid(logits_RV)
    left_RV = None
    if sampling.temperature == 0:
        tokens_R = logits_RV.argmax(-1)
        if allowed is not None:
            tokens_R = allowed.take_ranks(logits_RV, tokens_R)
        chosen_R = logits_RV.gather(1, tokens_R[:, None])[:, 0]
        logprobs_R = chosen_R - logits_RV.logsumexp(-1)
    else:
        logprobs_RV = truncate(logits_RV / sampling.temperature, sampling).log_softmax(-1)
        probabilities_RV = logprobs_RV.exp()
        tokens_R = first_beyond(probabilities_RV.cumsum(-1), probabilities_RV > 0, uniforms_R)
        logprobs_R = logprobs_RV.gather(1, tokens_R[:, None])[:, 0]
        if sampling.truncated or allowed is not None:
            left_RV = logprobs_RV.isfinite()
    signals_R2 = signals(free_RV, tokens_R) if sampling.signals else None
    top = likeliest(free_RV, sampling.top_logprobs) if sampling.top_logprobs else None
    return Drawn(tokens_R, logprobs_R, left_RV, signals_R2, top)


def likeliest(logits_RV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` likeliest tokens and their logprobs at temperature 1, (R, K)."""
    top = logits_RV.topk(min(count, logits_RV.shape[-1]), dim=-1)
    return top.indices, top.values - logits_RV.logsumexp(-1, keepdim=True)


def signals(logits_RV: Tensor, tokens_R: Tensor) -> Tensor:
    """Return each token's logprob at temperature 1, and its margin over all others, (R, 2)."""
    chosen_R1 = logits_RV.gather(1, tokens_R[:, None])
    others_RV = logits_RV.scatter(1, tokens_R[:, None], float("-inf"))
    margins_R1 = chosen_R1 - others_RV.amax(-1, keepdim=True)
    return torch.cat((chosen_R1 - logits_RV.logsumexp(-1, keepdim=True), margins_R1), dim=1)


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
    """Set what top_k, then top_p, then min_p cut away to -inf."""
    if 0 < sampling.top_k < logits_RV.shape[-1]:
        edge_R1 = logits_RV.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits_RV = logits_RV.masked_fill(logits_RV < edge_R1, float("-inf"))
    if sampling.top_p < 1:
        logits_RV = logits_RV.masked_fill(~_nucleus(logits_RV, sampling), float("-inf"))
    if sampling.min_p > 0:
        below_RV = logits_RV - logits_RV.amax(-1, keepdim=True)
        logits_RV = logits_RV.masked_fill(below_RV < log(sampling.min_p), float("-inf"))
    return logits_RV


def _nucleus(logits_RV: Tensor, sampling: Sampling) -> Tensor:
    """Return which tokens stay (R, V): the first, by logit and then id, that reach top_p.

    Weights are whole numbers of 2^-40, so that their sums are exact; 2^58 holds those of 2^18.
    """
    size = logits_RV.shape[-1]
    ranked_RK = logits_RV.topk(min(sampling.top_k or size, size), dim=-1).values
    weights_RK = ((ranked_RK - ranked_RK[:, :1]).exp() * 2.0**40).long()
    reached_RK, last_R1 = weights_RK.cumsum(-1), weights_RK[:, -1:]
    sum_R1, parts = reached_RK[:, -1:], sampling.nucleus_parts
    # Ties that top_k kept beyond its count weigh as much as the last of the ranked.
    more_R1 = (logits_RV > float("-inf")).sum(-1, keepdim=True) - ranked_RK.shape[-1]
    total_R1 = sum_R1 + more_R1.clamp(min=0) * last_R1
    enough_R1 = ((total_R1 >> 28) * parts >> 2) + ((total_R1 & (2**28 - 1)) * parts >> 30)
    count_R1 = (reached_RK - weights_RK < enough_R1).sum(-1, keepdim=True)
    edge_R1 = ranked_RK.gather(1, count_R1 - 1)
    beyond_R1 = (enough_R1 - sum_R1 + last_R1 - 1).clamp(min=0) // last_R1.clamp(min=1)
    above_RV, tied_RV = logits_RV > edge_R1, logits_RV == edge_R1
    room_R1 = count_R1 + beyond_R1 - above_RV.sum(-1, keepdim=True)
    return above_RV | (tied_RV & (tied_RV.cumsum(-1) <= room_R1))
