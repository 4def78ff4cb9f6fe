"""A teacher agent behind an OpenAI-compatible address; its tools run here.

Left out: servers that run tools themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from offapi.agent.episode_host import EpisodeHost
from offapi.data.documents import Document
from offapi.network.guard import allow
from offapi.task import Task
from offapi.teachers.agent_session import AgentSession
from offapi.teachers.agent_teacher import AgentLabel
from offapi.teachers.endpoint import Endpoint
from offapi.teachers.teacher import Price


@dataclass(frozen=True)
class EndpointAgent:
    """The model behind `endpoint`, with the tools of `task_file`."""

    endpoint: Endpoint
    task: Task
    task_file: Path

    @property
    def name(self) -> str:
        """Address and model, as the traces record them."""
        return self.endpoint.name

    @property
    def price(self) -> Price | None:
        """The price; None: unknown."""
        return self.endpoint.price

    def episodes(self, documents: Sequence[Document]) -> Generator[AgentLabel, None, None]:
        """Run the episodes, as many at a time as the endpoint gets requests.

        End as `Endpoint.answers` does; what has begun is yielded first, as stopped. Raise
        ConfigError for tools that cannot be used.
        """
        asked = self.endpoint
        # The processes of the tools begin before the network guard opens for the teacher.
        with (
            EpisodeHost(self.task_file) as host,
            allow(asked.host, asked.port),
            asyncio.Runner() as runner,
        ):
            connection, budget = asked.connect()
            session = AgentSession(
                connection, budget, self.task, host, documents, asked.concurrency, asked.say
            )
            for answered in session.run(runner):
                yield session.labels.pop(answered.id)
