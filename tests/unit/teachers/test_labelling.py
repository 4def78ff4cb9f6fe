"""Labelling: no document is asked twice, failures wait for a retry, and it can stop anywhere."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Generator, Sequence
from pathlib import Path

import disk_faults
import pytest

import offapi
from offapi import checks
from offapi.data.documents import Document
from offapi.errors import DataError, TeacherError
from offapi.teachers.labelling import LabellingPlan, LabellingTally, LabellingWatch, label_documents
from offapi.teachers.labels_file import read_labels
from offapi.teachers.recorded import Recorded
from offapi.teachers.teacher import FREE, Answered, Price, Request, Usage

TASK = offapi.Task(
    name="totals",
    instructions="Read the total.",
    schema={"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
    checks={"json": (checks.is_json, 1.0)},
    match={"total": "number"},
    examples=(offapi.Example("TOTAL 1", {"total": 1}), offapi.Example("TOTAL 2", {"total": 2})),
    max_answer_tokens=50,
)
DOCUMENTS = [Document(f"d{i}", f"TOTAL {i}") for i in range(4)]


class Scripted:
    """A teacher that fails for some documents, may end early, and remembers what it was asked."""

    def __init__(
        self, fails: dict[str, str] | None = None, ends_at: str = "", price: Price | None = FREE
    ) -> None:
        self.name, self.price = "scripted", price
        self.fails, self.ends_at = fails or {}, ends_at
        self.asked: list[str] = []
        self.requests: list[Request] = []
        self.closed = False

    def answers(self, requests: Sequence[Request]) -> Generator[Answered, None, None]:
        try:
            for request in requests:
                if request.id == self.ends_at:
                    raise TeacherError("gone away.", where="http://x", next_step="Start it.")
                self.asked.append(request.id)
                self.requests.append(request)
                yield Answered(
                    request.id,
                    f"re {request.id}",
                    self.fails.get(request.id, ""),
                    Usage(100, 10),
                    0.5,
                )
        finally:
            self.closed = True


def test_every_document_is_asked_once_and_the_rest_is_read_back(tmp_path: Path) -> None:
    out, teacher = tmp_path / "labels.jsonl", Scripted()
    first = label_documents(TASK, DOCUMENTS[:2], teacher, out)
    second = label_documents(TASK, DOCUMENTS, teacher, out)
    assert teacher.asked == ["d0", "d1", "d2", "d3"]
    assert (first.ok, first.asked, second.ok, second.asked) == (2, 2, 4, 2)
    assert [(x.id, x.output, x.status, x.usage, x.seconds) for x in second.labels] == [
        (f"d{i}", f"re d{i}", "ok", Usage(100, 10), 0.5) for i in range(4)
    ]
    assert second.usage == Usage(200, 20)


def test_a_changed_prompt_is_asked_again(tmp_path: Path) -> None:
    out, teacher = tmp_path / "labels.jsonl", Scripted()
    label_documents(TASK, DOCUMENTS[:1], teacher, out, shots=1)
    label_documents(TASK, DOCUMENTS[:1], teacher, out)
    label_documents(
        dataclasses.replace(TASK, instructions="Read it well."), DOCUMENTS[:1], teacher, out
    )
    label_documents(TASK, [Document("d0", "TOTAL 9")], teacher, out)
    assert teacher.asked == ["d0"] * 4
    assert [len(request.messages) for request in teacher.requests] == [4, 6, 6, 6]
    label_documents(TASK, DOCUMENTS[:1], teacher, out, shots=1)
    assert teacher.asked == ["d0"] * 4


def test_another_teacher_is_asked_for_all_documents(tmp_path: Path) -> None:
    out, other = tmp_path / "labels.jsonl", Scripted()
    label_documents(TASK, DOCUMENTS, Scripted(), out)
    other.name = "other"
    assert label_documents(TASK, DOCUMENTS, other, out).asked == 4


def test_failures_keep_their_line_until_retry_failed(tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    tally = label_documents(
        TASK,
        DOCUMENTS,
        Scripted({"d1": "truncated", "d2": "HTTP 400: too long", "d3": "HTTP 400: x"}),
        out,
    )
    assert (tally.ok, tally.failed, tally.left) == (1, {"HTTP 400": 2, "truncated": 1}, 0)

    again = Scripted()
    assert label_documents(TASK, DOCUMENTS, again, out).failed == tally.failed
    assert again.asked == []

    retried = label_documents(
        TASK,
        DOCUMENTS,
        Scripted({"d2": "timed out: no answer in 1 s (5 attempts)"}),
        out,
        retry_failed=True,
    )
    assert (retried.ok, retried.failed, retried.asked) == (3, {"timed out": 1}, 3)
    reasons = [x.reason for x in read_labels(out).labels if x.id == "d2"]
    assert reasons == ["HTTP 400: too long", "timed out: no answer in 1 s (5 attempts)"]
    assert label_documents(TASK, DOCUMENTS, again, out, retry_failed=True).ok == 4
    assert again.asked == ["d2"]


def test_an_early_end_keeps_the_answers_and_says_what_is_left(tmp_path: Path) -> None:
    out, seen = tmp_path / "labels.jsonl", list[LabellingTally]()
    with pytest.raises(
        TeacherError, match=r"gone away\. 2 of 4 documents are left to ask\."
    ) as caught:
        label_documents(
            TASK, DOCUMENTS, Scripted(ends_at="d2"), out, watch=LabellingWatch(ended=seen.append)
        )
    assert (caught.value.where, caught.value.next_step) == ("http://x", "Start it.")
    assert [(tally.ok, tally.left) for tally in seen] == [(2, 2)]
    rest = Scripted()
    assert label_documents(TASK, DOCUMENTS, rest, out).ok == 4
    assert rest.asked == ["d2", "d3"]


def test_an_interrupt_keeps_the_answers_and_closes_the_teacher(tmp_path: Path) -> None:
    out, teacher, seen = tmp_path / "labels.jsonl", Scripted(), list[tuple[int, bool]]()

    def ended(tally: LabellingTally) -> None:
        seen.append((tally.ok, teacher.closed))

    def interrupt(made: object) -> None:
        if len(teacher.asked) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="run the same command again to resume"):
        label_documents(
            TASK, DOCUMENTS, teacher, out, watch=LabellingWatch(answered=interrupt, ended=ended)
        )
    assert seen == [(3, True)]
    assert [x.id for x in read_labels(out).labels] == ["d0", "d1", "d2"]


def test_the_plan_comes_first_and_is_about_what_is_left(tmp_path: Path) -> None:
    out, plans = tmp_path / "labels.jsonl", list[LabellingPlan]()
    label_documents(TASK, DOCUMENTS[:2], Scripted({"d1": "truncated"}), out)
    teacher = Scripted(price=Price(1e6, 1e6))  # a dollar a token
    tally = label_documents(
        TASK, DOCUMENTS, teacher, out, shots=0, watch=LabellingWatch(planned=plans.append)
    )
    bytes_asked = 4 * len("Read the total." + "TOTAL 1")
    assert plans == [LabellingPlan(4, 0, 0, 4, bytes_asked // 4, bytes_asked // 4 + 4 * 50)]
    assert tally.cost == 4 * 110
    label_documents(TASK, DOCUMENTS, teacher, out, watch=LabellingWatch(planned=plans.append))
    assert (plans[1].ok, plans[1].failed, plans[1].asks) == (1, 1, 2)


def test_a_torn_line_is_reported_and_asked_again(tmp_path: Path) -> None:
    out, said = tmp_path / "labels.jsonl", list[str]()
    label_documents(TASK, DOCUMENTS, Scripted(), out)
    out.write_bytes(out.read_bytes()[:-20])
    teacher = Scripted()
    assert (
        label_documents(TASK, DOCUMENTS, teacher, out, watch=LabellingWatch(say=said.append)).ok
        == 4
    )
    assert teacher.asked == ["d3"]
    assert "cut off" in said[0]


def test_recorded_labels_are_spelled_as_the_student_learns_them(tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    documents = [Document("a", "x", recorded_label={"total": 5}), Document("b", "y")]
    tally = label_documents(TASK, documents, Recorded(), out)
    assert [(x.id, x.output, x.reason) for x in tally.labels] == [
        ("a", TASK.answer_text({"total": 5}), ""),
        ("b", "", "no recorded_label"),
    ]
    assert (tally.ok, tally.failed, tally.cost) == (1, {"no recorded_label": 1}, 0.0)


def test_a_changed_or_new_recorded_label_is_taken(tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    label_documents(
        TASK, [Document("a", "x", recorded_label={"total": 5}), Document("b", "y")], Recorded(), out
    )
    changed = [
        Document("a", "x", recorded_label={"total": 6}),
        Document("b", "y", recorded_label={"total": 7}),
    ]
    tally = label_documents(TASK, changed, Recorded(), out)
    assert [x.output for x in tally.labels] == [TASK.answer_text({"total": n}) for n in (6, 7)]
    assert label_documents(TASK, changed, Recorded(), out).asked == 0


def test_a_full_disk_leaves_no_empty_file(tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    with (
        disk_faults.fail_at(1, "write", errno.ENOSPC),
        pytest.raises(DataError, match="No space left"),
    ):
        label_documents(TASK, DOCUMENTS, Scripted(), out)
    assert list(tmp_path.iterdir()) == []
    with (
        disk_faults.fail_at(2, "write", errno.ENOSPC),
        pytest.raises(DataError, match="No space left"),
    ):
        label_documents(TASK, DOCUMENTS, Scripted(), out)
    assert [kept.id for kept in read_labels(out).labels] == ["d0"], "what was answered stays"
    assert label_documents(TASK, DOCUMENTS, Scripted(), out).ok == 4


def test_a_users_empty_file_stays(tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    out.touch()
    with pytest.raises(TeacherError):
        label_documents(TASK, DOCUMENTS, Scripted(ends_at="d0"), out)
    assert out.exists()
