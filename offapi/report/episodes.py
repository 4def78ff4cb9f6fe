"""An agent's episodes for the report, turn by turn: what was said, called and answered.

Scored answers come first, from predictions.jsonl; then the rollouts of a GRPO run's last step.
Left out: tokens, and episodes beyond `MANY`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offapi.checks.agent_trace import ERROR
from offapi.evaluation.accuracy import Prediction, report_episodes
from offapi.evaluation.episode_facts import ENDINGS
from offapi.report.document_files import cut
from offapi.report.render.table import Table, text
from offapi.report.run_files import Answers, Object, Record, mapping, number, read_lines
from offapi.text.display import plural

MANY = 60  # episodes of a page, of each source; wrong ones have priority
LONG_RESULT = 2_000  # characters of a tool's result, or of a prompt; the rest is cut
LONG_TURN = 4_000  # of what the model said
HEAD = ("an agent's episodes", "mean, with 95% interval")
COUNTED = ("tool_calls", "tool_errors")
ENDED = {str(finish): words for finish, words in ENDINGS.items()}
WHO = {"assistant": "model", "tool": "result"}


@dataclass(frozen=True)
class TurnView:
    """A message of an episode: `calls` are names with their arguments, as text."""

    who: str
    text: str
    note: str = ""  # of a result: its tool and its size
    calls: tuple[tuple[str, str], ...] = ()
    failed: bool = False  # a result that reports an error


@dataclass(frozen=True)
class EpisodeView:
    """One episode: its name, what it is worth and took, and its messages in order."""

    name: str
    facts: str
    right: bool
    turns: tuple[TurnView, ...]


@dataclass(frozen=True)
class EpisodeSection:
    """The episodes that are shown, under a title each source; `table` says what all took."""

    sources: tuple[tuple[str, tuple[EpisodeView, ...]], ...]
    table: Table | None = None


def episode_section(
    record: Record | None, answers: Sequence[Answers], *, with_documents: bool
) -> EpisodeSection | None:
    """Return the episodes of the first answers, and of the run's last rollouts; None of neither.

    Without documents, the texts of prompts and results are left out: tools may read the document.
    """
    sources, table = [], None
    rows = answers[0].rows if answers else ()
    scored = [view for row in rows if (view := _scored(row, with_documents)) is not None]
    if scored:
        taken = report_episodes(rows)
        table = None if taken is None else Table("", HEAD, tuple(taken.table()))
        sources.append(_source(f"Answers of {answers[0].name}", scored))
    if record is not None and (drawn := list(_rollouts(record, with_documents))):
        sources.append(_source("Rollouts of the last step", drawn))
    return EpisodeSection(tuple(sources), table) if sources else None


def _source(title: str, found: Sequence[EpisodeView]) -> tuple[str, tuple[EpisodeView, ...]]:
    first = sorted(range(len(found)), key=lambda at: found[at].right)[:MANY]
    shown = tuple(found[at] for at in sorted(first))
    count = plural(len(found), "episode")
    if len(shown) < len(found):
        count = f"{len(shown)} of {count}, wrong ones first"
    return f"{title}: {count}", shown


def _scored(row: Prediction, with_documents: bool) -> EpisodeView | None:
    facts = row.episode
    if facts is None:
        return None
    wrong = [name for name, right in row.correct.items() if not right]
    worth = f"wrong: {', '.join(wrong)}" if wrong else "right"
    took = _took(facts.turns, facts.tool_calls, facts.tool_errors, ENDINGS[facts.finish])
    name = row.id if row.sample is None else f"{row.id}, sample {row.sample}"
    turns = _turns(facts.messages, with_documents)
    return EpisodeView(name, f"{worth}; {took}", not wrong, turns)


def _rollouts(record: Record, with_documents: bool) -> Iterator[EpisodeView]:
    """Yield the episodes in the run's last file of rollouts; none where they are single answers."""
    files = sorted((record.path / "rollouts").glob("*.jsonl"))
    for row in read_lines(files[-1]) if files else ():
        source, messages = mapping(row, "source"), row.get("messages")
        segments = source.get("segments")
        if not isinstance(segments, list) or not isinstance(messages, list):
            continue
        reward = number(mapping(row, "grade").get("score"))
        worth = "no reward" if reward is None else f"reward {reward:.2f}"
        turns = sum(bool(segment.get("sampled")) for segment in segments)
        calls, errors = (int(number(source.get(name)) or 0) for name in COUNTED)
        took = _took(turns, calls, errors, ENDED.get(str(source.get("finish")), ""))
        shown = _turns(messages, with_documents)
        yield EpisodeView(str(row.get("id")), f"{worth}; {took}", (reward or 0.0) >= 1.0, shown)


def _took(turns: int, calls: int, errors: int, ended: str) -> str:
    failed = f", {plural(errors, 'tool error')}" if errors else ""
    return f"{plural(turns, 'turn')}, {plural(calls, 'tool call')}{failed}, {ended}"


def _turns(messages: Sequence[Mapping[str, Any]], with_documents: bool) -> tuple[TurnView, ...]:
    return tuple(_turn(message, with_documents) for message in messages)


def _turn(message: Object, with_documents: bool) -> TurnView:
    role, said = str(message.get("role")), text(message.get("content") or "")
    if role == "assistant":
        return TurnView(WHO[role], cut(said, LONG_TURN), calls=tuple(_calls(message)))
    size = plural(len(said), "character")
    tool = f"{message['name']}, " if message.get("name") else ""
    note = f"{tool}{size}"
    failed = role == "tool" and said.startswith(ERROR)
    shown = cut(said, LONG_RESULT) if with_documents or role == "system" else ""
    return TurnView(WHO.get(role, role), shown, note, failed=failed)


def _calls(message: Object) -> Iterator[tuple[str, str]]:
    for call in message.get("tool_calls") or ():
        function = mapping(call, "function")
        yield str(function.get("name")), cut(text(function.get("arguments")), LONG_TURN)
