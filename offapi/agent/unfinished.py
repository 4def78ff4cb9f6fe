"""An episode in progress: what was said, which tokens the model saw, and what was used up.

Tokens are appended as they were sampled or given, and none is encoded again. Left out: who decodes
and when, which is `run_episodes`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from offapi.agent.episode import AgentEpisode, AgentFinish, AgentLimits
from offapi.agent.episode_host import Opened
from offapi.chat.chat import Chat
from offapi.chat.tool_format import ToolFormat
from offapi.completions import Completion, Sampling
from offapi.data.documents import Document
from offapi.episodes import Segment
from offapi.task.task import Message
from offapi.tools.calls import Observation, Turn


@dataclass(frozen=True)
class Agent:
    """A model's chat, how it writes and is answered in it, and what an episode may take."""

    chat: Chat
    format: ToolFormat
    limits: AgentLimits


@dataclass(frozen=True)
class AgentAsk:
    """A document to run `samples` episodes for; `key` names them in the random stream."""

    document: Document
    messages: tuple[Message, ...]
    key: int
    samples: int = 1


@dataclass(eq=False)
class Unfinished:
    """The `sample`th episode of the ask `prompt`. `finish` is set once it has ended."""

    agent: Agent
    ask: AgentAsk
    prompt: int
    sample: int
    finish: AgentFinish | None = None
    messages: list[Message] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    turns: list[Completion] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    turn: Turn = Turn("")  # the last one
    tool_calls: int = 0
    tool_errors: int = 0
    malformed: int = 0
    tool_seconds: float = 0.0

    @property
    def key(self) -> tuple[int, int]:
        """What names the episode among those of one call."""
        return self.prompt, self.sample

    @property
    def left(self) -> int:
        """The tokens that it may still take."""
        return self.agent.limits.tokens - sum(len(segment.tokens) for segment in self.segments)

    def sampling(self, sampling: Sampling) -> Sampling:
        """Return how its next turn is sampled."""
        most = min(self.agent.limits.turn_tokens, self.left)
        return replace(sampling, max_tokens=max(most, 1))

    def begin(self, opened: Opened) -> tuple[int, ...]:
        """Return the tokens of the prompt, of which the environment may have written a part."""
        self.messages = _joined([*self.ask.messages, *map(dict, opened.messages)])
        tokens = self.agent.format.prompt(self.messages, id=self.ask.document.id)
        return self._given(tokens)

    def say(self, completion: Completion) -> None:
        """Append a sampled turn."""
        limits, tokens = self.agent.limits, completion.tokens
        cut = completion.finish == "length"
        self.turn = self.agent.format.read(tokens, first_call=self.tool_calls + 1)
        logprobs, mask = completion.logprobs, completion.sampling_mask
        self.segments.append(Segment(tokens, True, logprobs, mask))
        self.turns.append(completion)
        self.rewards.append(0.0)
        self.messages.append(self.turn.message())
        self.tool_calls += len(self.turn.calls)
        self.malformed += len(self.turn.malformed)
        if cut:
            self.finish = "length" if len(tokens) == limits.turn_tokens else "tokens"
        elif self.turn.final:
            self.finish = "stop"

    def hear(self, observation: Observation) -> tuple[int, ...]:
        """Take what the environment answered to the last turn; return the tokens that say it.

        They are none where the episode has ended.
        """
        limits = self.agent.limits
        self.rewards[-1] = observation.reward
        self.tool_errors += observation.errors
        self.tool_seconds += observation.seconds
        if observation.done:
            self.finish = "done"
        elif len(self.turns) >= limits.turns:
            self.finish = "turns"
        elif self.tool_seconds > limits.tool_seconds:
            self.finish = "tool_seconds"
        else:
            results = observation.messages
            asked, format = self.messages[:-1], self.agent.format
            tokens = format.continuation(asked, self.turn, results)
            if self._given(tokens):
                self.messages += map(dict, results)
                return tokens
        return ()

    def _given(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Append tokens that were not sampled, or end the episode where no turn would fit."""
        if len(tokens) >= self.left:
            self.finish = "tokens"
            if self.turns:
                return ()
        self.segments.append(Segment(tokens, sampled=False))
        return tokens

    def finished(self, score: float | None) -> AgentEpisode:
        """Return the episode, which has ended."""
        assert self.finish is not None
        return AgentEpisode(
            self.prompt,
            self.sample,
            tuple(self.segments),
            tuple(self.turns),
            tuple(self.messages),
            self.finish,
            self.tool_calls,
            self.tool_errors,
            self.malformed,
            self.tool_seconds,
            tuple(self.rewards),
            score,
        )


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Return `messages` with a user's that follow each other as one, as strict templates want."""
    joined: list[Message] = []
    for message in messages:
        if joined and message["role"] == joined[-1]["role"] == "user":
            text = "\n\n".join((joined[-1]["content"], message["content"]))
            joined[-1] = {**joined[-1], "content": text}
        else:
            joined.append(message)
    return joined
