"""Episodes of agents as rollouts: how they are asked for, and what GRPO learns of them.

Left out: how episodes are run (`offapi.agent.run_episodes`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from offapi.agent.episode import AgentEpisode
from offapi.agent.episode_host import EpisodeHost
from offapi.agent.run_episodes import run_episodes
from offapi.agent.unfinished import Agent, AgentAsk
from offapi.backend import Backend, Completion, Sampling
from offapi.episodes import Floats, SamplingMask, Segment

LAG = 4  # decode steps after which an episode continues: the same bits, however fast its tools are
ENDED = ("stop", "done")  # finishes that are not a limit


@dataclass(frozen=True)
class AgentSampler:
    """An agent, and the processes of its environments."""

    agent: Agent
    host: EpisodeHost

    def groups(
        self, backend: Backend, asks: Sequence[AgentAsk], sampling: Sampling
    ) -> Iterator[tuple[int, list[AgentEpisode]]]:
        """Yield the index of each ask with its episodes in order, once all of them have ended."""
        found: dict[int, list[AgentEpisode]] = {}
        for episode in run_episodes(backend, self.agent, self.host, asks, sampling, lag=LAG):
            group = found.setdefault(episode.prompt, [])
            group.append(episode)
            if len(group) == asks[episode.prompt].samples:
                yield episode.prompt, sorted(found.pop(episode.prompt), key=lambda one: one.sample)


def sampled_tokens(episode: AgentEpisode) -> Completion:
    """Return all that was sampled in an episode, end to end, as one completion.

    It is cut off where the episode ended at a limit.
    """
    turns = episode.turns
    tokens = tuple(token for turn in turns for token in turn.tokens)
    logprobs = tuple(logprob for turn in turns for logprob in turn.logprobs)
    masks = [turn.sampling_mask for turn in turns if turn.sampling_mask is not None]
    joined = None
    if masks:
        counts_T = np.concatenate([mask.counts for mask in masks])
        joined = SamplingMask(np.concatenate([mask.ids for mask in masks]), counts_T)
    finish = "stop" if episode.finish in ENDED else "length"
    return Completion(tokens, logprobs, finish, joined)  # type: ignore[arg-type]


def learned_segments(episode: AgentEpisode) -> tuple[Segment, ...]:
    """Return the segments up to the last sampled one: what follows teaches nothing."""
    last = max(at for at, segment in enumerate(episode.segments) if segment.sampled)
    return tuple(
        replace(segment, logprobs=segment.logprobs or None)
        for segment in episode.segments[: last + 1]
    )


def returns(rewards: Sequence[float], final: float) -> NDArray[np.float64]:
    """Return each turn's reward to go: its own, later turns', and the final reward, (K,)."""
    return np.cumsum(np.array([*rewards[:-1], rewards[-1] + final])[::-1])[::-1].copy()


def turn_groups(returns_GK: Sequence[NDArray[np.float64]]) -> list[list[float]]:
    """Return for each turn of the longest episode the rewards to go that are compared there.

    An episode that ended before is compared by its last turn's.
    """
    longest = max(map(len, returns_GK))
    groups = []
    for turn in range(longest):
        groups.append([float(own_K[min(turn, len(own_K) - 1)]) for own_K in returns_GK])
    return groups


def by_token(advantages_K: Sequence[float], episode: AgentEpisode) -> Floats:
    """Return the advantage of every sampled token, that of its turn, (T,)."""
    counts = [len(turn.tokens) for turn in episode.turns]
    return np.repeat(np.array(advantages_K[: len(counts)], np.float32), counts)
