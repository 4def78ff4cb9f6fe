"""A loaded model's episodes as the answers to a test set's rows, for a task with tools.

An episode continues as soon as its tool has answered, since no run is resumed from here. Left out:
rewards (`offapi.rl`), and answers bound by a grammar.
"""

from __future__ import annotations

from collections.abc import Sequence

from offapi.agent.episode import AgentEpisode, AgentLimits
from offapi.agent.episode_host import EpisodeHost
from offapi.agent.run_episodes import run_episodes
from offapi.agent.unfinished import Agent, AgentAsk
from offapi.backend import Backend, Sampling
from offapi.chat.chat import Chat
from offapi.chat.tool_format import ToolFormat
from offapi.data.documents import Document
from offapi.data.rows import Row
from offapi.data.traces import Trace
from offapi.errors import ConfigError, DataError
from offapi.progress import Progress
from offapi.task import Task

EPISODE_TOKENS = 16_384  # of a whole episode, where nothing else bounds it


def agent_of(task: Task, chat: Chat, max_tokens: int = EPISODE_TOKENS) -> Agent:
    """Return how the episodes of `task` are run, with at most `max_tokens` tokens each.

    Raise ConfigError or ModelError where the chat template cannot write them.
    """
    limits = AgentLimits.of(task, max_tokens)
    return Agent(chat, ToolFormat.of(chat, task.tool_schemas), limits)


def refuse_constraints(level: str) -> None:
    """Raise ConfigError where an agent's answers are to be constrained."""
    if level != "off":
        what = f"constrain = {level!r} bounds a single answer, and the task has tools."
        raise ConfigError(what, where="constrain", next_step="Leave out `constrain`.")


def run_agent(
    backend: Backend,
    agent: Agent,
    task: Task,
    asks: Sequence[AgentAsk],
    progress: Progress,
    temperature: float = 0.0,
) -> list[AgentEpisode]:
    """Return the episodes of `asks`, ask by ask and sample by sample.

    Raise ConfigError where the task was not read from a file: its tools run in other processes.
    """
    if task.file is None:
        what = "the task has tools, and was not read from a file."
        step = "Read it with offapi.load_task(FILE)."
        raise ConfigError(what, where=f"task {task.name!r}", next_step=step)
    limit = agent.limits.turn_tokens
    sampling = Sampling(limit, agent.chat.stop_ids, temperature=temperature)
    count = sum(ask.samples for ask in asks)
    episodes = []
    with EpisodeHost(task.file) as host, progress.progress("episodes", count) as advance:
        for episode in run_episodes(backend, agent, host, asks, sampling):
            episodes.append(episode)
            advance(len(episodes))
    return sorted(episodes, key=lambda one: (one.prompt, one.sample))


def ask_agent(task: Task, row: Row, key: int, shots: int = 0, samples: int = 1) -> AgentAsk:
    """Return what asks an agent for the answer to `row`.

    Of a trace that is everything before the agent's own turns; its tools are the task's.
    """
    if not isinstance(row, Trace):
        return AgentAsk(row, tuple(task.messages(row.text, shots)), key, samples)
    if shots:
        raise ConfigError(
            "traces bring their own prompts, so worked examples cannot be added.",
            next_step="Remove --shots.",
        )
    asked = [at for at, message in enumerate(row.messages[:-1]) if message["role"] == "user"]
    if not asked:
        what, step = "no message of a user asks for the answer.", "Remove the row, or add it."
        raise DataError(what, where=f"row {row.id!r}", next_step=step)
    messages = row.messages[: asked[-1] + 1]
    return AgentAsk(
        Document(row.id, row.asked), tuple(dict(message) for message in messages), key, samples
    )


def tokens_asked(episode: AgentEpisode) -> int:
    """Return the prompt tokens of all turns, as an endpoint would count them: each turn's whole."""
    seen = total = 0
    for segment in episode.segments:
        total += seen if segment.sampled else 0
        seen += len(segment.tokens)
    return total
