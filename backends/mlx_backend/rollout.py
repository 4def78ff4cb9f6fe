"""Completions of many prompts: an engine's rows, gathered into groups as they finish.

Left out: adding prompts while a call runs, which the engine itself can.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from offapi.completions import Completion, Group, Sampling, check_rollout
from offapi.engine import RowError, RowRequest, StartMatcher
from offapi.episodes import SamplingMask
from offapi.model_spec import Limits

from .engine import MLXEngine
from .library_engine import LibraryEngine
from .lora import Adapters
from .policy import Policy
from .rows import Row


def rollout(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    n: int,
    sampling: Sampling,
    keys: Sequence[int] | None,
    limits: Limits,
    starts: Sequence[StartMatcher | None] | None = None,
) -> Iterator[Group]:
    """See `Backend.rollout`."""
    check_rollout(prompts, n, keys, policy.vocabulary, starts)
    named = range(len(prompts)) if keys is None else keys
    bounds = [None] * len(prompts) if starts is None else starts
    requests = [
        RowRequest(tokens, sampling, key, sample, start=start)
        for prompt, key, start in zip(prompts, named, bounds, strict=True)
        for tokens in [tuple(map(int, prompt))]
        for sample in range(n)
    ]
    return _groups(open_engine(policy, limits, Adapters(policy, {}, Path())), requests, n)


def open_engine(
    policy: Policy, limits: Limits, adapters: Adapters, cache_bytes: int = 0
) -> MLXEngine | LibraryEngine:
    """Return an engine of the kind that computes `policy`."""
    if policy.implementation == "library":
        return LibraryEngine(policy, limits, adapters)
    return MLXEngine(policy, limits, adapters, cache_bytes)


def _groups(
    engine: MLXEngine | LibraryEngine, requests: Sequence[RowRequest], n: int
) -> Iterator[Group]:
    engine.insert(requests)
    done: dict[int, list[Row]] = {}
    while not engine.idle:
        for row, index in _advance(engine):
            if row.finish is None or index < len(row.tokens) - 1:
                continue
            prompt = row.number // n
            group = done.setdefault(prompt, [])
            group.append(row)
            if len(group) == n:
                ordered = sorted(done.pop(prompt), key=lambda row: row.sample)
                yield Group(prompt, tuple(map(_completion, ordered)))


def _advance(engine: MLXEngine | LibraryEngine) -> list[tuple[Row, int]]:
    try:
        return engine.advance()
    except RowError as error:
        raise error.cause from error.cause.__cause__


def _completion(row: Row) -> Completion:
    mask = SamplingMask.of_positions(row.left_T) if row.left_T else None
    tokens, logprobs, finish = tuple(row.tokens), tuple(row.logprobs), row.finish or "length"
    if not row.signals_T2:
        return Completion(tokens, logprobs, finish, mask)
    free, margins = zip(*row.signals_T2, strict=True)
    return Completion(tokens, logprobs, finish, mask, free, margins)
