"""Label documents with a teacher: ask for what the labels file lacks, write each answer at once.

Left out: grading. A label is the teacher's raw text; the recipes grade it with the task's checks.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from offapi.errors import OffapiError
from offapi.progress import say_nothing
from offapi.teachers.failures import failure_kind
from offapi.teachers.labels_file import Label, Log
from offapi.teachers.recorded import Recorded
from offapi.teachers.teacher import Answered, Price, Request, Teacher, Usage
from offapi.text.display import share

if TYPE_CHECKING:
    from offapi.data.documents import Document
    from offapi.task import Task

BYTES_PER_TOKEN = 4  # of English prose; used only for the estimate


@dataclass(frozen=True)
class LabellingPlan:
    """What is about to be asked, reported in advance. Token and dollar figures are estimates."""

    documents: int
    ok: int  # already answered by this teacher for this very prompt
    failed: int  # already failed, and not asked again now
    asks: int
    prompt_tokens: int
    cost: float | None  # dollars if every answer has its full length; None: prices unknown


@dataclass(frozen=True)
class LabellingTally:
    """The state of these documents' labels: documents = ok + failed + left."""

    documents: int
    ok: int
    failed: Mapping[str, int]  # kind of reason -> documents
    left: int  # not yet asked
    asked: int  # in this call, as are the figures below
    usage: Usage
    seconds: float
    cost: float | None  # dollars; None: prices unknown
    teacher: str
    path: Path
    labels: tuple[Label, ...] = field(default=(), repr=False)  # of the documents, in their order


@dataclass(frozen=True)
class LabellingWatch:
    """Callbacks for progress. `ended` is called on success, on errors and on Ctrl-C alike."""

    planned: Callable[[LabellingPlan], None] = say_nothing
    answered: Callable[[Label], None] = say_nothing
    ended: Callable[[LabellingTally], None] = say_nothing
    say: Callable[[str], None] = say_nothing


def label_documents(
    task: Task,
    documents: Sequence[Document],
    teacher: Teacher,
    out_path: Path,
    *,
    shots: int | None = None,
    retry_failed: bool = False,
    watch: LabellingWatch | None = None,
) -> LabellingTally:
    """Have `teacher` label `documents` into the labels file `out_path`, resuming an earlier call.

    A document that this teacher answered for this very prompt is not asked again; a failed one only
    with `retry_failed`. `shots`: worked examples in the prompt (default all). Raise DataError or
    RunError for the file, TeacherError or GateFailed when labelling ended early; the answers so far
    are kept.
    """
    watch = watch or LabellingWatch()
    asked = build_requests(task, documents, teacher, len(task.examples) if shots is None else shots)
    with Log(out_path) as log:
        if log.warning:
            watch.say(f"{out_path}: {log.warning}")
        known = {request.id: log.settled.get(_key(request, teacher)) for request in asked}
        todo = [request for request in asked if _due(known[request.id], retry_failed)]
        watch.planned(_plan(known, todo, teacher.price, task.max_answer_tokens))
        work = _Work(
            {id: label for id, label in known.items() if label}, started=time.perf_counter()
        )
        try:
            _ask(teacher, todo, log, work, watch)
        except OffapiError as error:
            tally = work.tally(asked, teacher, out_path)
            left = share(tally.left, tally.documents, "document", ("is", "are"))
            raise type(error)(
                f"{error.what} {left} left to ask.",
                where=error.where,
                next_step=error.next_step,
            ) from error
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"All answers so far are in {out_path}; run the same command again to resume."
            ) from None
        finally:
            tally = work.tally(asked, teacher, out_path)
            watch.ended(tally)
    return tally


def build_requests(
    task: Task, documents: Sequence[Document], teacher: Teacher, shots: int
) -> list[Request]:
    """Return what `teacher` is asked for each document.

    A recorded answer is the last message of its request.
    """
    if not isinstance(teacher, Recorded):
        return [
            Request(document.id, tuple(task.messages(document.text, shots)))
            for document in documents
        ]
    chats = []
    for document in documents:
        chat = task.messages(document.text)
        if document.recorded_label is not None:
            chat = [
                *chat,
                {
                    "role": "assistant",
                    "content": task.answer_text(document.recorded_label, row=document.id),
                },
            ]
        chats.append(Request(document.id, tuple(chat)))
    return chats


@dataclass
class _Work:
    """What changes while labelling: each document's label so far, and the totals of this call."""

    labels: dict[str, Label]
    started: float
    asked: int = 0
    usage: Usage = field(default_factory=Usage)

    def add(self, label: Label) -> None:
        self.labels[label.id] = label
        self.asked += 1
        self.usage += label.usage

    def tally(self, asked: Sequence[Request], teacher: Teacher, path: Path) -> LabellingTally:
        labels = tuple(self.labels[request.id] for request in asked if request.id in self.labels)
        failed = Counter(failure_kind(label.reason) for label in labels if label.status == "failed")
        return LabellingTally(
            documents=len(asked),
            ok=len(labels) - failed.total(),
            failed=dict(failed.most_common()),
            left=len(asked) - len(labels),
            asked=self.asked,
            usage=self.usage,
            seconds=time.perf_counter() - self.started,
            cost=None if teacher.price is None else teacher.price.of(self.usage),
            teacher=teacher.name,
            path=path,
            labels=labels,
        )


def _ask(
    teacher: Teacher, todo: Sequence[Request], log: Log, work: _Work, watch: LabellingWatch
) -> None:
    if not todo:
        return
    hashes = {request.id: request.prompt_sha256 for request in todo}
    with closing(teacher.answers(todo)) as answers:
        for answered in answers:
            label = make_label(answered, teacher, hashes[answered.id])
            log.append(label)
            work.add(label)
            watch.answered(label)


def make_label(answered: Answered, teacher: Teacher, prompt_sha256: str) -> Label:
    """Return the label that an answer of `teacher` to a prompt with this hash is."""
    return Label(
        id=answered.id,
        output=answered.output,
        status="failed" if answered.reason else "ok",
        usage=answered.usage,
        seconds=round(answered.seconds, 4),
        teacher=teacher.name,
        prompt_sha256=prompt_sha256,
        reason=answered.reason,
    )


def _key(request: Request, teacher: Teacher) -> tuple[str, str, str]:
    return request.id, teacher.name, request.prompt_sha256


def _due(label: Label | None, retry_failed: bool) -> bool:
    return label is None or (retry_failed and label.status == "failed")


def _plan(
    known: Mapping[str, Label | None], todo: Sequence[Request], price: Price | None, max_tokens: int
) -> LabellingPlan:
    ok = sum(label is not None and label.status == "ok" for label in known.values())
    tokens = sum(request.prompt_bytes for request in todo) // BYTES_PER_TOKEN
    cost = price.of(Usage(tokens, max_tokens * len(todo))) if price else None
    return LabellingPlan(len(known), ok, len(known) - ok - len(todo), len(todo), tokens, cost)
