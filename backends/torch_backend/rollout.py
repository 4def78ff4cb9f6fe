"""Completions of many rows side by side, with the prompts' common prefix held once.

Rows wait, are prefilled into free slots, decode one token per step and leave when finished. Left
out: speculative decoding, and sampling more than one token per step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offapi.completions import Completion, Group, Sampling, check_rollout
from offapi.engine import Matcher, StartMatcher
from offapi.episodes import Floats, SamplingMask, common_prefix_length
from offapi.randomness import uniforms

from .cache import Decoding
from .cuda_graphs import Graphs
from .matching import Allowed
from .packed_attention import Packed
from .policy import Policy
from .sampling import Drawn, choose

Decode = Callable[[Sequence["Row"]], Drawn]
Starts = Sequence[StartMatcher | None]


@dataclass
class Row:
    """A completion in progress."""

    prompt: int
    sample: int
    own: int  # prompt tokens after the shared prefix
    uniforms_T: Floats  # one for each of max_tokens
    matcher: Matcher | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    # the ids that truncation or the matcher left at each token
    left_T: list[NDArray[np.int32]] = field(default_factory=list)
    signals_T: list[tuple[float, float]] = field(default_factory=list)

    @property
    def uniform(self) -> float:
        """The uniform that draws the next token."""
        return float(self.uniforms_T[len(self.tokens)])

    @property
    def filled(self) -> int:
        """The keys in its slot: all but those of the shared prefix and the last token."""
        return self.own + len(self.tokens) - 1

    def finish(self, sampling: Sampling) -> Completion | None:
        """Return the completion once its last token ends it, else None."""
        finish = sampling.finish(self.tokens)
        if finish is None:
            return None
        mask = SamplingMask.of_positions(self.left_T) if self.left_T else None
        free_logprobs, margins = (
            zip(*self.signals_T, strict=True) if self.signals_T else (None, None)
        )
        return Completion(
            tuple(self.tokens), tuple(self.logprobs), finish, mask, free_logprobs, margins
        )


@dataclass
class Call:
    """One call of `rollout`: what was asked for, the rows decoding now, and unfinished groups.

    Row i owns slot i.
    """

    policy: Policy
    prompts: Sequence[Sequence[int]]
    keys: Sequence[int]
    n: int
    sampling: Sampling
    cache: Decoding
    decode: Decode
    waiting: deque[int]
    starts: Starts
    rows: list[Row] = field(default_factory=list)
    done: dict[int, dict[int, Completion]] = field(default_factory=dict)


def rollout(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    n: int,
    sampling: Sampling,
    keys: Sequence[int] | None,
    starts: Starts | None,
) -> Iterator[Group]:
    """See `Backend.rollout`."""
    check_rollout(prompts, n, keys, policy.vocabulary, starts)
    return _groups(policy, prompts, n, sampling, keys, starts) if prompts else iter(())


def _groups(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    n: int,
    sampling: Sampling,
    keys: Sequence[int] | None,
    starts: Starts | None,
) -> Iterator[Group]:
    call = _start(policy, prompts, n, sampling, keys, starts)
    while call.waiting or call.rows:
        with torch.inference_mode():
            while call.waiting and len(call.rows) + n <= call.cache.room:
                _prefill(call)
                if any(row.finish(sampling) for row in call.rows):
                    break
            else:
                _append(call.rows, call.decode(call.rows), sampling.truncated)
        yield from _retire(call)


def _start(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    n: int,
    sampling: Sampling,
    keys: Sequence[int] | None,
    starts: Starts | None,
) -> Call:
    policy.prepare_rollout()
    # A single prompt shares all but its last token, so its completions read it once.
    shared = common_prefix_length(prompts)
    rows = min(max(policy.spec.limits.rollout_rows // n, 1), len(prompts)) * n
    capacity = max(len(prompt) for prompt in prompts) - shared + sampling.max_tokens
    cache = Decoding(room=rows, capacity=capacity, shared=shared)
    if shared:
        with torch.inference_mode():
            _run(policy, [prompts[0][:shared]], 0, Packed(((0, (shared,)),), keep=cache.prefix))
    named = range(len(prompts)) if keys is None else keys
    decode = _decoder(policy, cache, sampling, bound=starts is not None)
    starts = [None] * len(prompts) if starts is None else starts
    waiting = deque(range(len(prompts)))
    return Call(policy, prompts, named, n, sampling, cache, decode, waiting, starts)


def _run(policy: Policy, rows: Sequence[Sequence[int]], start: int, layout: Packed) -> Tensor:
    """Return the last hidden state of each row, whose positions begin at `start`, shape (R, D)."""
    tokens = [token for row in rows for token in row]
    positions = [start + i for row in rows for i in range(len(row))]
    tokens_1L = torch.tensor([tokens], device=policy.device)
    positions_1L = torch.tensor([positions], device=policy.device)
    ends_R = torch.tensor([len(row) for row in rows]).cumsum(0) - 1
    policy.prefilled_tokens += len(tokens)
    return policy.sampled_hidden(tokens_1L, positions_1L, layout)[0, ends_R.to(policy.device)]


def _prefill(call: Call) -> None:
    """Run the next waiting prompts once, copy their keys into slots, and draw first tokens."""
    shared, sampling, at = call.cache.shared, call.sampling, len(call.rows)
    own: list[Sequence[int]] = []
    budget = call.policy.spec.limits.micro_batch
    while call.waiting and at + (len(own) + 1) * call.n <= call.cache.room:
        row = call.prompts[call.waiting[0]][shared:]
        budget -= len(row)
        if own and budget < 0:
            break
        own.append(row)
        index = call.waiting.popleft()
        for sample in range(call.n):
            uniforms_T = uniforms(
                sampling.seed, sampling.step, call.keys[index], sample, sampling.max_tokens
            )
            start = call.starts[index]
            matcher = None if start is None else start(sample)
            call.rows.append(Row(index, sample, len(row), uniforms_T, matcher))
    lengths = [len(row) for row in own]
    layout = Packed(((0, tuple(lengths)),), prefix=call.cache.prefix, keep={})
    last_RD = _run(call.policy, own, shared, layout)
    call.cache.admit(layout.keep or {}, lengths, call.n, at)
    logits_RV = (last_RD @ call.policy.head.T).repeat_interleave(call.n, dim=0)
    uniforms_R = torch.tensor([row.uniform for row in call.rows[at:]], device=logits_RV.device)
    drawn = _choose(logits_RV, sampling, uniforms_R, call.rows[at:])
    _append(call.rows[at:], drawn, sampling.truncated)


def _choose(
    logits_RV: Tensor, sampling: Sampling, uniforms_R: Tensor, rows: Sequence[Row]
) -> Drawn:
    """Draw a token for each row among those that its matcher allows."""
    allowed = Allowed.of([row.matcher for row in rows], logits_RV.shape[1])
    return choose(logits_RV, sampling, uniforms_R, allowed)


def _decoder(policy: Policy, cache: Decoding, sampling: Sampling, bound: bool) -> Decode:
    """Return what decodes a token for each row: the model as it is, or captured steps on CUDA."""

    def logits(tokens_R: Tensor, filled_R: Tensor, longest: int) -> Tensor:
        cache.place(filled_R, longest)
        positions_R = filled_R + cache.shared
        hidden_RD = policy.sampled_hidden(tokens_R[None], positions_R[None], cache)[0]
        return hidden_RD @ policy.head.T

    def step(tokens_R: Tensor, filled_R: Tensor, uniforms_R: Tensor, longest: int) -> Drawn:
        return choose(logits(tokens_R, filled_R, longest), sampling, uniforms_R)

    def eager(rows: Sequence[Row]) -> Drawn:
        tokens = [row.tokens[-1] for row in rows]
        filled = [row.filled for row in rows]
        inputs_2R = torch.tensor([tokens, filled], device=policy.device)
        uniforms_R = torch.tensor([row.uniform for row in rows], device=policy.device)
        logits_RV = logits(inputs_2R[0], inputs_2R[1], max(filled) + 1)
        return _choose(logits_RV, sampling, uniforms_R, rows)

    if bound or not policy.capturable:
        return eager
    graphs = Graphs(step, cache.room, cache.capacity, policy.device)

    def captured(rows: Sequence[Row]) -> Drawn:
        tokens = [row.tokens[-1] for row in rows]
        filled = [row.filled for row in rows]
        return graphs(tokens, filled, [row.uniform for row in rows])

    return captured


def _append(rows: Sequence[Row], drawn: Drawn, truncated: bool) -> None:
    tokens, logprobs = drawn.tokens_R.tolist(), drawn.logprobs_R.tolist()
    for row, token, logprob in zip(rows, tokens, logprobs, strict=True):
        row.tokens.append(token)
        row.logprobs.append(logprob)
        if row.matcher is not None:
            row.matcher.accept(token)
    if drawn.left_RV is not None:
        counts, ids = drawn.left_RV.sum(-1).tolist(), drawn.left_RV.nonzero()[:, 1].int().cpu()
        for row, row_ids in zip(rows, torch.split(ids, counts), strict=True):
            if truncated or row.matcher is not None:
                row.left_T.append(row_ids.numpy().copy())
    if drawn.signals_R2 is not None:
        for row, (logprob, margin) in zip(rows, drawn.signals_R2.tolist(), strict=True):
            row.signals_T.append((logprob, margin))


def _retire(call: Call) -> Iterator[Group]:
    """Yield the groups that are complete; the last running row takes each finished one's slot."""
    for i in reversed(range(len(call.rows))):
        row = call.rows[i]
        completion = row.finish(call.sampling)
        if completion is None:
            continue
        last = call.rows.pop()
        if i < len(call.rows):
            call.rows[i] = last
            with torch.inference_mode():
                call.cache.move(len(call.rows), i)
        group = call.done.setdefault(row.prompt, {})
        group[row.sample] = completion
        if len(group) == call.n:
            del call.done[row.prompt]
            yield Group(row.prompt, tuple(group[sample] for sample in range(call.n)))
