"""Rollouts as graded traces on disk, and graded traces
as rollouts: training offline on what was sampled before.

A row of a run's own rollouts holds the token ids and behaviour logprobs in `source`, so that
importance weights are exact. Of other traces neither is known: the ratio is then 1, and a
group's best traces stand against its rest. Left out: traces with tools or several turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from offapi.backend import Completion, Finish
from offapi.chat.chat import Chat
from offapi.data import traces
from offapi.data.documents import Document
from offapi.data.traces import Trace
from offapi.errors import DataError
from offapi.files import jsonl
from offapi.rl.reward_pool import Judged
from offapi.rl.rollouts import Prompt, Rollout, RolloutGroup
from offapi.task import Task

FOLDER = "rollouts"
GRADE = "Grade the traces with `offapi grade`, or take a run's own rollouts."


def encode(groups: Sequence[RolloutGroup], task: Task, step: int) -> bytes:
    """The groups of a step as JSONL traces, `group` naming the prompt they share."""
    return b"".join(
        jsonl.line(traces.as_row(_trace(f"{step}.{at}/{group.prompt.row.id}", group, i, one, task)))
        for at, group in enumerate(groups)  # a prompt may be there twice, resampled
        for i, one in enumerate(group.rollouts)
    )


def read(path: Path, task: Task, chat: Chat) -> list[RolloutGroup]:
    """The groups of two traces or more in a file, or in a run's folder of them.

    DataError for a trace without a grade, or with
    tools or several turns, and where no group is left.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    found: dict[tuple[Path, str], list[Trace]] = {}
    for file in files:
        for trace in traces.read(file):
            if trace.grade is None or "score" not in trace.grade:
                raise DataError.at(
                    f"trace {trace.id!r} has no grade.", path=file, field="grade", next_step=GRADE
                )
            if not trace.single_shot:
                step = "Take traces of one question and one answer."
                raise DataError.at(
                    f"trace {trace.id!r} has several turns.", path=file, next_step=step
                )
            if trace.grade["score"] is not None:  # of a run's own: the reward function gave it none
                found.setdefault((file, trace.group or trace.document), []).append(trace)
    groups = [_group(group, chat) for group in found.values() if len(group) > 1]
    if not groups:
        step = (
            'Give the traces of one prompt the same "group"; one answer alone is neither better nor'
            " worse."
        )
        raise DataError.at("no prompt has two answers.", path=path, field="group", next_step=step)
    return groups


def _trace(name: str, group: RolloutGroup, i: int, one: Rollout, task: Task) -> Trace:
    said = {"role": "assistant", "content": one.text}
    source = {
        "tokens": list(one.completion.tokens),
        "logprobs": (
            list(one.completion.logprobs) if one.completion.sampling_mask is None else None
        ),  # of a truncated distribution
        "finish": one.completion.finish,
        "audit": dict(one.judged.audit),
    }
    checks = {name: {"score": score, "reason": ""} for name, score in one.judged.parts.items()}
    grade = {"score": one.reward, "checks": checks}
    return Trace(
        f"{name}#{i}",
        (*task.messages(group.prompt.row.text), said),
        group=name,
        source=source,
        grade=grade,
    )


def _group(members: Sequence[Trace], chat: Chat) -> RolloutGroup:
    first = members[0]
    asked = chat.prompt(first.messages[:-1], id=first.id)
    rollouts = [_rollout(trace, chat) for trace in members]
    if not all(one.completion.logprobs for one in rollouts):
        best = max(one.reward or 0.0 for one in rollouts)
        rollouts = [replace(one, reward=float(one.reward == best)) for one in rollouts]
    return RolloutGroup(
        Prompt(Document(first.id, first.document, first.gold), asked), tuple(rollouts)
    )


def _rollout(trace: Trace, chat: Chat) -> Rollout:
    source: Mapping[str, Any] = trace.source or {}
    grade = cast(Mapping[str, Any], trace.grade)
    tokens_T = tuple(source.get("tokens") or ())
    logprobs_T = tuple(source.get("logprobs") or ())
    if not tokens_T or chat.decode(tokens_T) != trace.messages[-1]["content"]:
        segments = chat.episode(trace.id, trace.messages).segments  # another tokenizer's
        tokens_T, logprobs_T = next(one.tokens for one in segments if one.sampled), ()
    elif len(tokens_T) != len(logprobs_T):
        logprobs_T = ()
    parts = {name: float(check["score"]) for name, check in (grade.get("checks") or {}).items()}
    judged = Judged(float(grade["score"]), parts, source.get("audit") or {})
    finish: Finish = "length" if source.get("finish") == "length" else "stop"
    return Rollout(Completion(tokens_T, logprobs_T, finish), trace.answer, judged, judged.reward)
