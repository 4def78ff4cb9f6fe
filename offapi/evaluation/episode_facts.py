"""How an agent came to its answer: the chat, how it ended, and what it took.

Left out: what the answer is worth (`offapi.evaluation.accuracy`), and tokens themselves.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from offapi.agent.episode import FINISHES, AgentEpisode, AgentFinish
from offapi.files import jsonl
from offapi.stats import bootstrap
from offapi.stats.interval import Interval

Message = Mapping[str, Any]
COUNTS = ("turns", "tool_calls", "tool_errors", "malformed", "tokens", "sampled")
NAMES = {
    "turns": "turns",
    "tool_calls": "tool calls",
    "tool_errors": "tool errors",
    "malformed": "malformed calls",
    "tokens": "tokens of an episode",
    "sampled": "tokens that the model wrote",
}
ENDINGS: Mapping[AgentFinish, str] = {
    "stop": "answered",
    "length": "a turn was cut off",
    "turns": "out of turns",
    "tokens": "out of tokens",
    "tool_seconds": "out of tool seconds",
    "done": "ended by the environment",
}
EVAL = "Write the file with `offapi eval --out`."


@dataclass(frozen=True)
class EpisodeFacts:
    """One episode without its tokens; `tool_errors` include the `malformed` calls."""

    messages: tuple[Message, ...]
    finish: AgentFinish
    turns: int
    tool_calls: int
    tool_errors: int
    malformed: int
    tokens: int  # of the whole episode, prompt and results included
    sampled: int  # of the model's own turns
    score: float | None = None  # of the environment

    @classmethod
    def of(cls, episode: AgentEpisode) -> EpisodeFacts:
        """Return the facts of `episode`."""
        lengths = [len(segment.tokens) for segment in episode.segments]
        return cls(
            tuple(episode.messages),
            episode.finish,
            len(episode.turns),
            episode.tool_calls,
            episode.tool_errors,
            episode.malformed,
            sum(lengths),
            sum(len(turn.tokens) for turn in episode.turns),
            episode.score,
        )

    def as_row(self) -> dict[str, Any]:
        """Return what a row of predictions.jsonl adds: `messages` and `episode`."""
        counts: dict[str, Any] = {"finish": self.finish}
        counts |= {name: getattr(self, name) for name in COUNTS}
        if self.score is not None:
            counts["score"] = self.score
        return {"messages": list(self.messages), "episode": counts}

    @classmethod
    def read(cls, row: jsonl.JsonRow) -> EpisodeFacts | None:
        """Return what `as_row` wrote, None for a row of another answer; raise DataError."""
        counts = row.optional("episode", dict)
        if counts is None:
            return None
        messages = row.required("messages", list)
        finish, score = counts.get("finish"), counts.get("score")
        numbers: dict[str, Any] = {name: counts.get(name) for name in COUNTS}
        if finish not in FINISHES or not all(type(each) is int for each in numbers.values()):
            raise row.error("is not what an episode took.", "episode", EVAL)
        if not messages or not all(isinstance(each, dict) for each in messages):
            raise row.error("is not a chat.", "messages", EVAL)
        return cls(tuple(messages), finish, **numbers, score=score)


@dataclass(frozen=True)
class EpisodesReport:
    """What the episodes took: means over all of them, with 95% intervals over documents."""

    n: int  # episodes
    means: Mapping[str, Interval]  # by COUNTS
    finishes: Mapping[AgentFinish, int]
    score: Interval | None = None  # the environment's, where it gave one to all

    @classmethod
    def of(
        cls, episodes: Sequence[EpisodeFacts], units: Sequence[str | None] | None = None
    ) -> EpisodesReport:
        """Compute the means; episodes of one of the `units` are resampled together."""
        took = operator.attrgetter(*COUNTS)
        columns = [took(one) for one in episodes]
        means = bootstrap.intervals(np.array(columns, np.float64), units)
        scores = [one.score for one in episodes if one.score is not None]
        score = None
        if len(scores) == len(episodes):
            score = bootstrap.intervals(np.array(scores, np.float64)[:, None], units)[0]
        found = Counter(one.finish for one in episodes)
        finishes = {name: found[name] for name in FINISHES if found[name]}
        return cls(len(episodes), dict(zip(COUNTS, means, strict=True)), finishes, score)

    def as_dict(self) -> dict[str, Any]:
        """Return the object under `episodes` in `offapi eval --json`."""
        means = {name: asdict(interval) for name, interval in self.means.items()}
        score = {} if self.score is None else {"score": asdict(self.score)}
        return {"n": self.n, **means, **score, "finish": dict(self.finishes)}

    def table(self) -> list[tuple[str, str]]:
        """Return rows for people: means with intervals, then how episodes ended."""
        rows = [(NAMES[name], _mean(interval)) for name, interval in self.means.items()]
        if self.score is not None:
            rows.append(("environment's score", _mean(self.score)))
        for finish, count in self.finishes.items():
            share = f"{count} of {self.n}, {100 * count / self.n:.1f}%"
            rows.append((f"{ENDINGS[finish]} ({finish})", share))
        return rows


def _mean(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}–{interval.high:.2f}]"
