"""Episodes of several turns: each as if alone, nothing seen computed twice, limits that end them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import oracle
from implementations import EVERY
from scripted_agent import ScriptedFormat, ScriptedHost
from test_engine import continued
from test_rollout import PROMPTS, SAMPLED

from offapi.agent.episode import AgentEpisode, AgentLimits
from offapi.agent.run_episodes import run_episodes
from offapi.agent.unfinished import Agent, AgentAsk
from offapi.backend import Backend
from offapi.data.documents import Document
from offapi.engine import RowRequest
from offapi.episodes import Episode
from offapi.model_spec import Limits
from offapi.optimizer import Arrays

Load = Callable[..., Backend]
LIMITS = AgentLimits(turns=8, turn_tokens=6, tokens=200, tool_seconds=10.0)
# a turn ends at one of these, or is cut off
SAMPLING = replace(SAMPLED, stop_ids=tuple(range(0, 300, 2)), temperature=4.0)
ASKS = [
    AgentAsk(Document(f"d{key}", ""), ({"role": "user", "content": prompt},), key, samples=2)
    for key, prompt in enumerate(PROMPTS[:3])
]


def run(
    backend: Backend,
    host: ScriptedHost | None = None,
    limits: AgentLimits = LIMITS,
    lag: int | None = None,
    final: int = 3,
) -> list[AgentEpisode]:
    """Return all episodes of ASKS in order."""
    agent: Any = Agent(None, ScriptedFormat(final), limits)  # type: ignore[arg-type]
    given: Any = host or ScriptedHost()
    episodes = list(run_episodes(backend, agent, given, ASKS, SAMPLING, lag=lag))
    ordered = sorted(episodes, key=lambda each: (each.prompt, each.sample))
    assert [(each.prompt, each.sample) for each in ordered] == [
        (p, s) for p in range(3) for s in (0, 1)
    ]
    return ordered


def tokens(episodes: list[AgentEpisode]) -> list[tuple[tuple[int, ...], ...]]:
    return [tuple(segment.tokens for segment in each.segments) for each in episodes]


@EVERY
def test_each_turn_continues_what_the_model_saw_and_nothing_is_computed_twice(
    adapted: Load, truth: oracle.Llama, adapter: Arrays
) -> None:
    backend = adapted()
    read = backend.prefilled_tokens
    episodes = run(backend)
    given = 0
    for episode in episodes:
        ask, seen, used = ASKS[episode.prompt], list[int](), 0
        for segment in episode.segments:
            if segment.sampled:
                request = RowRequest((), SAMPLING, ask.key, episode.sample)
                expected = continued(truth, adapter, request, seen, used, len(segment.tokens))
                assert list(segment.tokens) == expected
                used += len(segment.tokens)
            elif seen:
                given += len(segment.tokens) + 1
            seen += segment.tokens
    scored = backend.score(
        [Episode("", each.segments) for each in episodes], temperature=SAMPLING.temperature
    )
    for episode, logprobs_T in zip(episodes, scored, strict=True):
        behaviour = Episode("", episode.segments).behaviour
        np.testing.assert_allclose(behaviour, logprobs_T, atol=5 * oracle.CLOSE)
    prompts = [prompt["content"] for ask in ASKS for prompt in ask.messages]
    shared = 20 if backend.implementation == "packed" else 0
    assert backend.prefilled_tokens - read == given + sum(map(len, prompts)) - 2 * shared
    assert max(len(each.turns) for each in episodes) == 3, "the test shows several turns"


@EVERY
def test_episodes_are_the_same_however_many_rows_there_are(adapted: Load) -> None:
    expected = tokens(run(adapted()))
    host = ScriptedHost(slow=2)
    assert tokens(run(adapted(limits=Limits(rollout_rows=2)), host)) == expected
    assert host.most == 4
    assert tokens(run(adapted(limits=Limits(rollout_rows=1)), lag=2)) == expected


@EVERY
def test_with_a_lag_a_slow_tool_changes_no_bit(adapted: Load) -> None:
    backend = adapted(limits=Limits(rollout_rows=3))
    fast = run(backend, ScriptedHost(), lag=3)
    slow = run(backend, ScriptedHost(slow=2, polls=9, seconds=0.1), lag=3)
    for one, other in zip(fast, slow, strict=True):
        assert one.segments == other.segments
        assert one.turns == other.turns


def test_every_limit_is_a_finish_of_its_own(adapted: Load) -> None:
    backend = adapted()
    for limits, seconds, final, finish in [
        (LIMITS, 0.0, 3, {"stop", "length"}),
        (replace(LIMITS, turn_tokens=90, turns=2), 0.0, 3, {"turns"}),
        (replace(LIMITS, turn_tokens=90, turns=99, tokens=60), 0.0, 99, {"tokens"}),
        (replace(LIMITS, turn_tokens=90, tool_seconds=1.0), 0.6, 99, {"tool_seconds"}),
        (replace(LIMITS, tokens=5), 0.0, 3, {"tokens"}),
    ]:
        episodes = run(backend, ScriptedHost(seconds=seconds), limits, final=final)
        assert {each.finish for each in episodes} == finish
        for each in episodes:
            assert sum(len(segment.tokens) for segment in each.segments) <= max(limits.tokens, 30)
            assert len(each.rewards) == len(each.turns)
            assert each.score == len(each.messages)
            assert not each.turns or each.messages[-1]["role"] == "assistant"
            for one, other in pairwise(each.segments):
                assert one.sampled != other.sampled
