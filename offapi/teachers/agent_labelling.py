"""Have a teacher agent write traces for documents: one episode each, appended as it ends.

Left out: grading. A trace is kept as it came; `offapi grade` and the recipes grade it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from offapi.data.documents import Document
from offapi.data.traces import Trace, as_row
from offapi.progress import Progress
from offapi.task import Task
from offapi.teachers.agent_log import AgentLog
from offapi.teachers.agent_teacher import STOPPED, AgentLabel, AgentTeacher, question_of
from offapi.teachers.failures import failure_kind
from offapi.teachers.teacher import Usage
from offapi.text.display import plural, share


@dataclass(frozen=True)
class AgentTally:
    """The state of these documents' traces: documents = ok + failed + left."""

    documents: int
    ok: int
    failed: Mapping[str, int]  # kind of reason -> documents
    left: int
    asked: int  # in this call, as are the figures below
    usage: Usage
    seconds: float
    teacher: str
    path: Path

    def lines(self) -> list[str]:
        """Return sentences for people."""
        labelled = share(self.ok, self.documents, "document", ("has", "have"))
        lines = [f"{labelled} a trace." + (f" {self.left} still to ask." if self.left else "")]
        lines += [f"  {count} failed: {reason}" for reason, count in self.failed.items()]
        written = plural(self.usage.completion_tokens, "answer token")
        lines.append(
            f"This run: {plural(self.asked, 'episode')}, {self.usage.prompt_tokens} prompt and"
            f" {written}, {self.seconds:.1f} s."
        )
        return [*lines, f"Traces: {self.path}"]

    def as_dict(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        known = asdict(self)
        usage = known.pop("usage")
        path = str(known.pop("path"))
        return {"traces": path, **known, **usage, "seconds": round(self.seconds, 3)}


@dataclass
class _Counts:
    asked: int = 0
    usage: Usage = field(default_factory=Usage)


def label_agent(
    task: Task,
    documents: Sequence[Document],
    teacher: AgentTeacher,
    out: Path,
    progress: Progress,
    *,
    retry_failed: bool = False,
    plan: Callable[[Sequence[Document]], str] | None = None,
) -> AgentTally:
    """Have `teacher` answer `documents` into the traces file `out`, resuming an earlier call.

    A document that has a trace of this teacher for this very question is not asked again; a failed
    one only with `retry_failed`, unless its session stopped it. `plan` writes a sentence about the
    documents still to ask. Raise what the file and the teacher raise; all traces so far are
    then kept.
    """
    counts, started = _Counts(), time.perf_counter()
    keys = {each.id: (each.id, teacher.name, question_of(task, each)) for each in documents}
    with AgentLog(out) as log:
        whole = {key: each for key, each in log.failed.items() if each["reason"] != STOPPED}
        known = log.done if retry_failed else {**log.done, **whole}
        todo = [each for each in documents if keys[each.id] not in known]
        before = f" ({len(documents) - len(todo)} before)" if len(todo) < len(documents) else ""
        progress.say(
            f"{teacher.name} will answer {len(todo)} of {plural(len(documents), 'document')}"
            f"{before}."
        )
        if plan and todo:
            progress.say(plan(todo))
        by_id, failed = {each.id: each for each in todo}, Counter[str]()
        ok = sum(keys[each.id] in log.done for each in documents)
        with progress.progress("labelling", len(todo)) as advance:
            try:
                _ask(task, teacher, by_id, keys, log, counts, failed, advance)
            except KeyboardInterrupt:
                what = f"All traces so far are in {out}; run the same command again to resume."
                raise KeyboardInterrupt(what) from None
    earlier = [whole[key] for key in keys.values() if key in whole and not retry_failed]
    failed.update(failure_kind(str(source["reason"])) for source in earlier)
    ok += counts.asked - sum(failed.values()) + len(earlier)
    return AgentTally(
        documents=len(documents),
        ok=ok,
        failed=dict(failed.most_common()),
        left=len(documents) - ok - failed.total(),
        asked=counts.asked,
        usage=counts.usage,
        seconds=time.perf_counter() - started,
        teacher=teacher.name,
        path=out,
    )


def _ask(
    task: Task,
    teacher: AgentTeacher,
    by_id: Mapping[str, Document],
    keys: Mapping[str, tuple[str, str, str]],
    log: AgentLog,
    counts: _Counts,
    failed: Counter[str],
    advance: Any,
) -> None:
    if not by_id:
        return
    with closing(teacher.episodes(list(by_id.values()))) as episodes:
        for label in episodes:
            log.append(
                _row(task, by_id[label.id], label, keys[label.id]), failed=bool(label.reason)
            )
            counts.asked += 1
            counts.usage += label.usage
            failed.update([failure_kind(label.reason)] if label.reason else [])
            advance(counts.asked, f"{failed.total()} failed" if failed else "")


def _row(
    task: Task, document: Document, label: AgentLabel, key: tuple[str, str, str]
) -> dict[str, Any]:
    source = {
        "teacher": key[1],
        "question": key[2],
        "usage": asdict(label.usage),
        "seconds": round(label.seconds, 4),
        "tool_errors": label.tool_errors,
        **({"reason": label.reason} if label.reason else {}),
    }
    return as_row(
        Trace(label.id, label.messages, tuple(task.tool_schemas), None, document.gold, source)
    )
