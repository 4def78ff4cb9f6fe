"""A session with an endpoint whose documents are episodes: each turn is one request.

All of `Session` holds for every request: attempts, waiting, and the budget. Left out: what is sent
(`client_episode`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence

from offapi.agent.episode_host import Closed, EpisodeHost, Opened
from offapi.data.documents import Document
from offapi.errors import OffapiError
from offapi.task import Task
from offapi.teachers.agent_teacher import STOPPED, AgentLabel
from offapi.teachers.budget import Budget
from offapi.teachers.client_episode import ClientEpisode
from offapi.teachers.connection import Connection
from offapi.teachers.session import Session
from offapi.teachers.teacher import Answered, Request
from offapi.tools.calls import Observation

POLL = 0.01  # seconds between looks for a tool's answer
AFFORD = 0.05  # seconds between looks whether the budget has room again


class AgentSession(Session):
    """The episodes of `documents`, `concurrency` at a time. `labels` has those that have ended."""

    def __init__(
        self,
        connection: Connection,
        budget: Budget,
        task: Task,
        host: EpisodeHost,
        documents: Sequence[Document],
        concurrency: int,
        say: Callable[[str], None],
    ) -> None:
        self._episodes = {each.id: ClientEpisode(task, each) for each in documents}
        requests = [episode.request() for episode in self._episodes.values()]
        super().__init__(connection, budget, requests, concurrency, say, {})
        self.host, self.labels = host, dict[str, AgentLabel]()
        self._asking = 0  # requests in progress
        self._replies: dict[Hashable, Opened | Observation | Closed] = {}

    async def _ask(self, request: Request, bound: float) -> Answered | None:
        """Run the episode whose first request is `request`; None when it has not begun."""
        episode = self._episodes.pop(request.id)
        try:
            await self._open(episode, bound)
            while not episode.over:
                await self._take_turn(episode)
            self.host.close(request.id, episode.messages)
            await self._reply(request.id)
        except OffapiError as error:
            self._stop(error)
            episode.end(STOPPED)
        if episode.reason == STOPPED and not episode.turns:
            return None
        self.labels[request.id] = episode.label()
        return Answered(request.id, "", episode.reason)

    async def _open(self, episode: ClientEpisode, bound: float) -> None:
        try:
            self.host.open(episode.document.id, episode.document)
            opened = await self._reply(episode.document.id)
        finally:
            self.budget.reserved -= bound
        assert isinstance(opened, Opened)
        episode.begin(opened)

    async def _take_turn(self, episode: ClientEpisode) -> None:
        """Ask for a turn, and have the environment answer it."""
        answered = await self._turn_of(episode.request())
        if answered is None:
            episode.end(STOPPED)
            return
        turn = episode.say(answered)
        if not episode.over:
            self.host.step(episode.document.id, turn)
            observation = await self._reply(episode.document.id)
            assert isinstance(observation, Observation)
            episode.hear(observation)

    async def _turn_of(self, request: Request) -> Answered | None:
        """Return the answer to one turn's request, once the budget has room for it."""
        bound = self.budget.bound(request)
        while self.ended is None and not self.budget.affordable(bound):
            if not self._asking:
                self._stop(self.budget.exhausted())
            await self._pause(AFFORD)
        self.budget.reserved += bound
        self._asking += 1
        try:
            return await super()._ask(request, bound)
        finally:
            self._asking -= 1

    async def _reply(self, key: Hashable) -> Opened | Observation | Closed:
        """Return the environment's reply to the episode `key`; others proceed until then."""
        while key not in self._replies:
            self._replies.update(self.host.poll())
            if key not in self._replies:
                await asyncio.sleep(POLL)
        return self._replies.pop(key)
