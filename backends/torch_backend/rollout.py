"""Completions of many prompts: an engine's rows, gathered into groups as they finish.

Left out: adding prompts while a call runs, which the engine itself can.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from offapi.completions import Completion, Group, Sampling, check_rollout
from offapi.engine import NewToken, RowError, RowRequest, StartMatcher, completion_of

from .engine import TorchEngine
from .library_engine import LibraryEngine
from .lora import Adapters
from .policy import Policy
from .row_queue import RowQueue


def start_engine(
    policy: Policy, adapters: Adapters, cache_bytes: int = 0, room: int | None = None
) -> RowQueue:
    """Return an engine that computes as the policy does; the library keeps no prefixes."""
    if policy.implementation == "library":
        return LibraryEngine(policy, adapters, room)
    return TorchEngine(policy, adapters, cache_bytes, room)


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
    engine = start_engine(policy, Adapters(policy.model, policy.spec, {}), room=room)
    for first in firsts:  # apart, so that equal prompts stay groups
        engine.insert([replace(first, sample=sample) for sample in range(n)])
    rows: defaultdict[int, list[NewToken]] = defaultdict(list)
    groups: defaultdict[int, dict[int, Completion]] = defaultdict(dict)
    while not engine.idle:
        for token in _step(engine):
            rows[token.row].append(token)
            if token.finish is None:
                continue
            prompt, sample = divmod(token.row, n)
            groups[prompt][sample] = completion_of(rows.pop(token.row))
            if len(groups[prompt]) == n:
                group = groups.pop(prompt)
                yield Group(prompt, tuple(group[sample] for sample in range(n)))


def _step(engine: RowQueue) -> list[NewToken]:
    try:
        return engine.step()
    except RowError as error:
        raise error.cause from error.cause.__cause__
