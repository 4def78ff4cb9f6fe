"""Completions of many prompts: an engine's rows, gathered into groups as they finish.

Left out: adding prompts while a call runs, which the engine itself can.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from offapi.completions import Completion, Finish, Group, Sampling, check_rollout
from offapi.engine import NewToken, RowRequest, StartMatcher
from offapi.episodes import SamplingMask

from .engine import TorchEngine
from .lora import Adapters
from .policy import Policy


def rollout(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    n: int,
    sampling: Sampling,
    keys: Sequence[int] | None,
    starts: Sequence[StartMatcher | None] | None,
) -> Iterator[Group]:
    """See `Backend.rollout`."""
    check_rollout(prompts, n, keys, policy.vocabulary, starts)
    named = range(len(prompts)) if keys is None else keys
    bounds = [None] * len(prompts) if starts is None else starts
    firsts = [
        RowRequest(tuple(prompt), sampling, key, start=start)
        for prompt, key, start in zip(prompts, named, bounds, strict=True)
    ]
    return _groups(policy, firsts, n)


def _groups(policy: Policy, firsts: Sequence[RowRequest], n: int) -> Iterator[Group]:
    room = max(policy.spec.limits.rollout_rows // n, 1) * n
    engine = TorchEngine(policy, Adapters(policy.model, policy.spec, {}), room=room)
    for first in firsts:  # apart, so that equal prompts stay groups
        engine.insert([replace(first, sample=sample) for sample in range(n)])
    done: dict[int, _Progress] = {}
    groups: dict[int, dict[int, Completion]] = {}
    while not engine.idle:
        for token in engine.step():
            progress = done.get(token.row)
            if progress is None:
                progress = done[token.row] = _Progress()
            progress.add(token)
            if token.finish is None:
                continue
            prompt, sample = divmod(token.row, n)
            group = groups.setdefault(prompt, {})
            group[sample] = done.pop(token.row).completion(token.finish)
            if len(group) == n:
                del groups[prompt]
                yield Group(prompt, tuple(group[sample] for sample in range(n)))


@dataclass(eq=False)
class _Progress:
    """What a row has drawn."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    allowed: list[NDArray[np.int32]] = field(default_factory=list)
    signals: list[tuple[float, float]] = field(default_factory=list)

    def add(self, token: NewToken) -> None:
        self.tokens.append(token.token)
        self.logprobs.append(token.logprob)
        if token.allowed is not None:
            self.allowed.append(token.allowed)
        if token.signals is not None:
            self.signals.append(token.signals)

    def completion(self, finish: Finish) -> Completion:
        mask = SamplingMask.of_positions(self.allowed) if self.allowed else None
        free, margins = zip(*self.signals, strict=True) if self.signals else (None, None)
        return Completion(tuple(self.tokens), tuple(self.logprobs), finish, mask, free, margins)
