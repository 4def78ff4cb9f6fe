"""Rollouts as graded traces on disk, and graded traces as rollouts for offline training.

A row of a run's own rollouts holds the token ids and behaviour logprobs in `source`, so that
importance weights are exact; one of an agent's episode holds its segments. Other traces have
neither: the ratio is then 1, and a group's best traces count as 1, the others as 0. Left out:
traces of several turns from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from offapi.agent.episode import AgentEpisode
from offapi.backend import Completion, Finish
from offapi.chat.chat import Chat
from offapi.data import traces
from offapi.data.documents import Document
from offapi.data.traces import Trace
from offapi.episodes import Segment
from offapi.errors import DataError
from offapi.files import jsonl
from offapi.rl.reward_pool import Judged
from offapi.rl.rollouts import DrawnAnswer, Prompt, Rollout, RolloutGroup
from offapi.task import Task

FOLDER = "rollouts"
GRADE = "Grade the traces with `offapi grade`, or use a run's own rollouts."


def encode(groups: Sequence[RolloutGroup], task: Task, step: int) -> bytes:
    """Return the groups of a step as JSONL traces, `group` naming the prompt they share."""
    return b"".join(
        jsonl.line(
            traces.as_row(_trace(f"{step}.{at}/{group.prompt.row.id}", group, i, rollout, task))
        )
        for at, group in enumerate(groups)  # a resampled prompt may be there twice
        for i, rollout in enumerate(group.rollouts)
    )


def read(path: Path, task: Task, chat: Chat) -> list[RolloutGroup]:
    """Return the groups of two traces or more in a file, or in a run's folder of them.

    Raises DataError for a trace without a grade, or with several turns from elsewhere, and where no
    group is left.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    by_prompt: dict[tuple[Path, str], list[Trace]] = {}
    for file in files:
        for trace in traces.read(file):
            if trace.grade is None or "score" not in trace.grade:
                raise DataError.at(
                    f"trace {trace.id!r} has no grade.", path=file, field="grade", next_step=GRADE
                )
            if not (trace.single_shot or _segments(trace)):
                step = "Use traces of one question and one answer, or a run's own rollouts."
                raise DataError.at(
                    f"trace {trace.id!r} has several turns.", path=file, next_step=step
                )
            if trace.escalated_to:
                what = f"trace {trace.id!r} is an answer of another model ({trace.escalated_to})."
                step = "Leave such rows out: terms may forbid learning them."
                raise DataError.at(what, path=file, field="source", next_step=step)
            if trace.grade["score"] is not None:  # in a run's own: the reward function gave None
                by_prompt.setdefault((file, trace.group or trace.document), []).append(trace)
    groups = [_group(group, chat) for group in by_prompt.values() if len(group) > 1]
    if not groups:
        step = (
            'Give the traces of one prompt the same "group". A single answer has nothing to compare'
            " with."
        )
        raise DataError.at("no prompt has two answers.", path=path, field="group", next_step=step)
    return groups


def _trace(name: str, group: RolloutGroup, i: int, rollout: Rollout, task: Task) -> Trace:
    checks = {name: {"score": score, "reason": ""} for name, score in rollout.judged.parts.items()}
    grade = {"score": rollout.reward, "checks": checks}
    if rollout.episode is not None:
        source = {**_source(rollout.episode), "audit": dict(rollout.judged.audit)}
        tools, messages = task.tool_schemas, rollout.episode.messages
        return Trace(f"{name}#{i}", messages, tools, group=name, source=source, grade=grade)
    answer = {"role": "assistant", "content": rollout.text}
    source = {
        "tokens": list(rollout.completion.tokens),
        "logprobs": (
            list(rollout.completion.logprobs) if rollout.completion.sampling_mask is None else None
        ),  # logprobs of a truncated distribution are not reusable
        "finish": rollout.completion.finish,
        "audit": dict(rollout.judged.audit),
    }
    return Trace(
        f"{name}#{i}",
        (*task.messages(group.prompt.row.text), answer),
        group=name,
        source=source,
        grade=grade,
    )


def _source(episode: AgentEpisode) -> dict[str, Any]:
    """Return what an episode was, token by token; seconds would differ between equal runs."""
    segments = [
        {
            "tokens": list(segment.tokens),
            "sampled": segment.sampled,
            # logprobs of a truncated distribution are not reusable
            "logprobs": list(segment.logprobs)
            if segment.logprobs and segment.sampling_mask is None
            else None,
        }
        for segment in episode.segments
    ]
    return {
        "segments": segments,
        "finish": episode.finish,
        "rewards": list(episode.rewards),
        "tool_calls": episode.tool_calls,
        "tool_errors": episode.tool_errors,
        "malformed": episode.malformed,
    }


def _segments(trace: Trace) -> tuple[Segment, ...]:
    """Return the segments of an agent's own rollout; none of another trace."""
    stored = (trace.source or {}).get("segments") or ()
    return tuple(
        Segment(tuple(one["tokens"]), one["sampled"], one["logprobs"] and tuple(one["logprobs"]))
        for one in stored
    )


def _stored_episode(trace: Trace, segments: tuple[Segment, ...]) -> AgentEpisode:
    source: Mapping[str, Any] = trace.source or {}
    finish = source["finish"]
    turns = tuple(
        Completion(each.tokens, each.logprobs or (), "length" if finish == "length" else "stop")
        for each in segments
        if each.sampled
    )
    counts = (source["tool_calls"], source["tool_errors"], source["malformed"])
    rewards = tuple(source["rewards"])
    return AgentEpisode(0, 0, segments, turns, trace.messages, finish, *counts, 0.0, rewards)


def _group(members: Sequence[Trace], chat: Chat) -> RolloutGroup:
    first = members[0]
    kept = _segments(first)
    asked = kept[0].tokens if kept else chat.prompt(first.messages[:-1], id=first.id)
    rollouts = [_rollout(trace, chat, asked) for trace in members]
    if not all(rollout.completion.logprobs for rollout in rollouts):
        best = max(rollout.reward or 0.0 for rollout in rollouts)
        rollouts = [replace(rollout, reward=float(rollout.reward == best)) for rollout in rollouts]
    return RolloutGroup(
        Prompt(Document(first.id, first.document, first.gold), asked), tuple(rollouts)
    )


def _rollout(trace: Trace, chat: Chat, asked: Sequence[int]) -> Rollout:
    source: Mapping[str, Any] = trace.source or {}
    grade = cast(Mapping[str, Any], trace.grade)
    parts = {name: float(check["score"]) for name, check in (grade.get("checks") or {}).items()}
    judged = Judged(float(grade["score"]), parts, source.get("audit") or {})
    if segments := _segments(trace):
        drawn = DrawnAnswer.of(_stored_episode(trace, segments))
        return Rollout(drawn.completion, drawn.text, judged, judged.reward, drawn.episode)
    tokens_T = tuple(source.get("tokens") or ())
    logprobs_T = tuple(source.get("logprobs") or ())
    if not tokens_T or chat.answer_text(asked, tokens_T) != trace.messages[-1]["content"]:
        segments = chat.episode(trace.id, trace.messages).segments  # another tokenizer's
        tokens_T = next(segment.tokens for segment in segments if segment.sampled)
        logprobs_T = ()
    elif len(tokens_T) != len(logprobs_T):
        logprobs_T = ()
    finish: Finish = "length" if source.get("finish") == "length" else "stop"
    return Rollout(Completion(tokens_T, logprobs_T, finish), trace.answer, judged, judged.reward)
