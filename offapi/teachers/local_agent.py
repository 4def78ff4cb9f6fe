"""A teacher agent on this machine: any model in the store, greedy, with the task's tools.

Left out: worked examples, and bounds on the answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from offapi.agent.episode import AgentEpisode, AgentLimits
from offapi.agent.episode_host import EpisodeHost
from offapi.agent.run_episodes import run_episodes
from offapi.agent.unfinished import Agent, AgentAsk
from offapi.backend import Sampling, load
from offapi.chat.chat import IN_FRONT, Chat
from offapi.chat.template_options import Options
from offapi.chat.tool_format import ToolFormat
from offapi.data.documents import Document
from offapi.model_spec import DType, ModelSpec
from offapi.models.store import Model
from offapi.progress import LOADING, say_nothing
from offapi.task import Task
from offapi.teachers.agent_teacher import AgentLabel, reason_of
from offapi.teachers.local import context_of, local_name
from offapi.teachers.teacher import FREE, Price, Usage

UNBOUNDED = 1 << 30  # tokens of an episode, where the model's config names no context length


@dataclass(frozen=True)
class LocalAgent:
    """`model` on the backend called `backend`, with the tools of `task_file`."""

    model: Model
    backend: str
    task: Task
    task_file: Path
    dtype: DType = "float32"
    price: Price = FREE
    say: Callable[[str], None] = field(default=say_nothing, repr=False)
    template: Options = field(default_factory=dict, hash=False)  # settings of the chat template

    @property
    def name(self) -> str:
        """The name that the user writes on the command line."""
        return local_name(self.model, self.template)

    def episodes(self, documents: Sequence[Document]) -> Generator[AgentLabel, None, None]:
        """Run all episodes side by side; the weights are loaded at the first one.

        Raise ModelError, BackendError, and ConfigError for tools that cannot be used.
        """
        chat = Chat.load(self.model.path, self.template)
        if chat.no_system:
            self.say(IN_FRONT)
        limits = AgentLimits.of(self.task, context_of(self.model) or UNBOUNDED)
        agent = Agent(chat, ToolFormat.of(chat, self.task.tool_schemas), limits)
        sampling = Sampling(limits.turn_tokens, chat.stop_ids)
        asks = [
            AgentAsk(document, tuple(self.task.messages(document.text)), key)
            for key, document in enumerate(documents)
        ]
        with EpisodeHost(self.task_file) as host:
            self.say(LOADING)
            backend = load(self.backend, ModelSpec(path=self.model.path, dtype=self.dtype))
            try:
                since = time.perf_counter()
                for episode in run_episodes(backend, agent, host, asks, sampling):
                    now = time.perf_counter()
                    yield _label(asks[episode.prompt].document.id, episode, limits, now - since)
                    since = now
            finally:
                backend.close()


def _label(id: str, episode: AgentEpisode, limits: AgentLimits, seconds: float) -> AgentLabel:
    counts = {True: 0, False: 0}
    for segment in episode.segments:
        counts[segment.sampled] += len(segment.tokens)
    return AgentLabel(
        id,
        episode.messages,
        reason_of(episode.finish, limits),
        Usage(counts[False], counts[True]),
        seconds,
        episode.tool_errors,
    )
