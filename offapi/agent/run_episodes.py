"""Many episodes at once: while tools answer some, the engine decodes the others.

Each episode is one row of the engine, kept between turns, so that nothing the model has seen is
computed again. Left out: what tools do (`offapi.tools`), and rewards beyond the environment's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence

from offapi.agent.episode import AgentEpisode
from offapi.agent.episode_host import Closed, EpisodeHost, Opened
from offapi.agent.unfinished import Agent, AgentAsk, Unfinished
from offapi.backend import Backend
from offapi.completions import Sampling
from offapi.engine import Engine, NewToken, RowRequest, completion_of
from offapi.tools.calls import Observation

OPEN = 2  # episodes in progress for each row of the engine: while one waits, another decodes
WAIT = 1.0  # seconds to wait for a reply at a time, when nothing decodes

Key = Hashable  # of an episode: its ask and sample


def run_episodes(
    backend: Backend,
    agent: Agent,
    host: EpisodeHost,
    asks: Sequence[AgentAsk],
    sampling: Sampling,
    *,
    lag: int | None = None,
) -> Iterator[AgentEpisode]:
    """Yield every episode of `asks`, as they end.

    The max_tokens of `sampling` are not used: the agent's limits say them. With `lag` an episode
    continues exactly that many decode steps after it paused, or once no row is live, and its tool
    is waited for until then; so what is computed together depends on tokens alone, and equal calls
    give equal bits. Without, it continues as soon as its tool has answered.

    Raise ConfigError for an environment that cannot be loaded or reset.
    """
    engine = backend.engine()
    try:
        room = OPEN * backend.limits.rollout_rows
        yield from _Runner(engine, agent, host, asks, sampling, lag, room).run()
    finally:
        engine.close()


class _Runner:
    """The episodes of one call: to be opened, paused, decoding, and waiting for their score."""

    def __init__(
        self,
        engine: Engine,
        agent: Agent,
        host: EpisodeHost,
        asks: Sequence[AgentAsk],
        sampling: Sampling,
        lag: int | None,
        room: int,
    ) -> None:
        self.engine, self.host, self.sampling = engine, host, sampling
        self.lag, self.room, self.steps = lag, room, 0
        self.todo = deque(
            Unfinished(agent, ask, prompt, sample)
            for prompt, ask in enumerate(asks)
            for sample in range(ask.samples)
        )
        # since which step they wait for a reply, in the order in which they began to
        self.paused: dict[Key, tuple[Unfinished, int]] = {}
        self.rows: dict[int, Unfinished] = {}  # by their row in the engine
        self.row_of: dict[Key, int] = {}
        self.drawn: dict[int, list[NewToken]] = {}  # of each row's turn
        self.closing: dict[Key, Unfinished] = {}
        self.replies: dict[Key, Opened | Observation | Closed] = {}

    def run(self) -> Iterator[AgentEpisode]:
        """Yield every episode, as they end."""
        while self.todo or self.paused or self.rows or self.closing:
            self._open()
            self._hear()
            self._continue(self._due())
            self._step()
            for key in [key for key in self.closing if key in self.replies]:
                closed = self.replies.pop(key)
                assert isinstance(closed, Closed)
                yield self.closing.pop(key).finished(closed.score)

    def _open(self) -> None:
        """Open further episodes in the places of those that have ended."""
        while self.todo and len(self.paused) + len(self.rows) < self.room:
            episode = self.todo.popleft()
            self.host.open(episode.key, episode.ask.document)
            self.paused[episode.key] = episode, self.steps

    def _hear(self) -> None:
        """Take the replies that have come; wait for one where nothing decodes."""
        decodes = bool(self.rows)
        waits = (self.lag is None and self.paused and not decodes) or not (self.paused or decodes)
        if not self.steps and self.paused:  # together, so that their prompts' prefix is shared
            self._wait(list(self.paused))
        else:
            self.replies.update(self.host.poll(WAIT if waits else 0.0))

    def _wait(self, keys: Sequence[Key]) -> None:
        """Wait for the replies to `keys`."""
        missing = [key for key in keys if key not in self.replies]
        if missing:
            self.replies.update(self.host.wait(missing))

    def _due(self) -> list[Key]:
        """Return the paused episodes that continue now, whose replies have come."""
        if self.lag is None:
            return [key for key in self.paused if key in self.replies]
        due = [
            key
            for key, (_, since) in self.paused.items()
            if not self.rows or since + self.lag <= self.steps
        ]
        self._wait(due)
        return due

    def _continue(self, due: Sequence[Key]) -> None:
        """Let episodes whose replies have come decode again, the new ones together."""
        begun, requests = [], []
        for key in due:
            (episode, _), reply = self.paused.pop(key), self.replies.pop(key)
            if isinstance(reply, Opened):
                tokens = episode.begin(reply)
                if episode.finish:
                    self._close(episode)
                    continue
                begun.append(episode)
                sampling, ask = episode.sampling(self.sampling), episode.ask
                requests.append(RowRequest(tokens, sampling, ask.key, episode.sample, keep=True))
            else:
                assert isinstance(reply, Observation)
                self._extend(episode, episode.hear(reply))
        for episode, row in zip(begun, self.engine.insert(requests), strict=True):
            self.row_of[episode.key] = row
            self.rows[row] = episode

    def _extend(self, episode: Unfinished, tokens: tuple[int, ...]) -> None:
        if episode.finish:
            self._close(episode)
            return
        row = self.row_of[episode.key]
        self.engine.extend(row, tokens, episode.sampling(self.sampling))
        self.rows[row] = episode

    def _step(self) -> None:
        """Decode one token for every row; ask the environments of rows whose turn has ended."""
        if not self.rows:
            return
        self.steps += 1
        for token in self.engine.step():
            self.drawn.setdefault(token.row, []).append(token)
            if token.finish is None:
                continue
            episode = self.rows.pop(token.row)
            episode.say(completion_of(self.drawn.pop(token.row)))
            if episode.finish:
                self._close(episode)
            else:
                self.paused[episode.key] = episode, self.steps
                self.host.step(episode.key, episode.turn)

    def _close(self, episode: Unfinished) -> None:
        """Drop what the engine has kept of an episode that has ended, and ask for its score."""
        row = self.row_of.pop(episode.key, None)
        if row is not None:
            self.engine.cancel(row)
        self.closing[episode.key] = episode
        self.host.close(episode.key, tuple(episode.messages))
