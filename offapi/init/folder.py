"""A task folder from one's own rows: every file, and what was inferred to write them.

Left out: writing it (`offapi.cli.init`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from offapi.checks.answer_forms import count_read
from offapi.checks.verdict import Verdict
from offapi.data.traces import Trace, as_row
from offapi.errors import DataError
from offapi.files import jsonl
from offapi.init import recipe_files
from offapi.init.examples import with_examples
from offapi.init.infer_task import DraftTask, Inferred, infer_task, placeholder
from offapi.init.python_text import Code
from offapi.init.readme import FolderSummary, write_readme
from offapi.init.registers import list_files, with_registers
from offapi.init.source import Source, SourceRow
from offapi.init.split import LEAST, split_rows
from offapi.init.task_file import write_task_file
from offapi.task import Task
from offapi.text.display import plural

IN_SOURCE = 0.9  # mean score of the logged answers that makes it a check
CHATS = 0.2  # share of rows with tools or several turns, above which chats are learned whole
BYTES_A_TOKEN = 2.5  # of a document
ROW_TOKENS = 2048  # of a recipe's max_tokens


@dataclass(frozen=True)
class TaskFolder:
    """The files of the folder, by name, and what was inferred for them."""

    files: Mapping[str, bytes]
    summary: FolderSummary


@dataclass(frozen=True)
class Parts:
    """The rows of each file. `chats`: they are learned as they were logged."""

    train: Sequence[SourceRow]
    val: Sequence[SourceRow]
    test: Sequence[SourceRow]
    chats: bool

    @property
    def logged(self) -> bool:
        """Whether the rows are chats of a log."""
        return any(row.chat is not None for row in self.train)


def make_folder(folder: Path, source: Source) -> TaskFolder:
    """Return the files of a task named as `folder`, made from `source`.

    Raise DataError where too few rows have an answer to hold any out.
    """
    answered = [row for row in source.rows if row.answer is not None and row.document.strip()]
    if not answered:
        return _without_answers(folder, source)
    silent = [(row, "it has no answer" if row.document.strip() else "it has no text")
              for row in source.rows if row.answer is None or not row.document.strip()]  # fmt: skip
    inferred = _one_way(infer_task(folder.absolute().name, answered))
    if len(inferred.rows) < LEAST:
        what = f"{plural(len(inferred.rows), 'row')} with an answer: too few to hold some out."
        raise DataError(what, next_step=f"Bring at least {LEAST}; fifty are a start.")
    inferred = replace(inferred, left_out=(*silent, *inferred.left_out))
    train, val, test = split_rows(inferred.rows)
    parts = Parts(train, val, test, _several_turns(inferred.rows) > 0)
    inferred, task = _with_checks(inferred)
    inferred = with_examples(inferred, task, train)
    inferred = with_registers(inferred, train, (*val, *test))
    summary = _summarise(folder, source, inferred, parts)
    return TaskFolder(_files(inferred, parts, summary), summary)


def _without_answers(folder: Path, source: Source) -> TaskFolder:
    draft = placeholder(folder.absolute().name)
    unsure = ("everything: no row has an answer, so the fields in task.py stand for your own",)
    inferred = Inferred(draft, source.rows, (), (), unsure)
    parts = Parts(source.rows, (), (), chats=False)
    summary = _summarise(folder, source, inferred, parts)
    return TaskFolder(_files(inferred, parts, summary), summary)


def _several_turns(rows: Sequence[SourceRow]) -> int:
    return sum(row.chat is not None and not row.chat.single_shot for row in rows)


def _one_way(inferred: Inferred) -> Inferred:
    """Leave out the few rows with tools or several turns, unless there are many."""
    count = _several_turns(inferred.rows)
    if not count or count > CHATS * len(inferred.rows):
        return inferred
    several = [row for row in inferred.rows if row.chat and not row.chat.single_shot]
    ids = {row.id for row in several}
    rows = tuple(row for row in inferred.rows if row.id not in ids)
    why = "it has several turns or tools"
    left_out = (*inferred.left_out, *((row, why) for row in several))
    return replace(inferred, rows=rows, left_out=left_out)


def load_draft(draft: DraftTask) -> Task:
    """Return the task that the draft's file defines, without writing it."""
    defined: dict[str, Any] = {}
    exec(compile(write_task_file(draft), "task.py", "exec"), defined)
    task = defined["task"]
    assert isinstance(task, Task)
    return task


def _with_checks(inferred: Inferred) -> tuple[Inferred, Task]:
    """Add the check that values stand in the document, where they do in the logged answers."""
    if inferred.draft.schema is None:
        return inferred, load_draft(inferred.draft)
    checks = {**inferred.draft.checks, "in the document": Code("in_source")}
    draft = replace(inferred.draft, checks=checks)
    task = load_draft(draft)
    verdicts = [
        task.grade(row.document, task.answer_text(row.answer or {})).parts["in the document"]
        for row in inferred.rows
    ]
    if all("no field" in verdict.reason for verdict in verdicts):
        return inferred, load_draft(inferred.draft)
    score = sum(verdict.score for verdict in verdicts) / len(verdicts)
    if score >= IN_SOURCE:
        fact = f"checks: {100 * score:.0f}% of the values stand in their document (in_source)"
        return replace(inferred, draft=draft, facts=(*inferred.facts, fact)), task
    note = _elsewhere(verdicts) + f"only {100 * score:.0f}% of the values do, so no check in_source"
    return replace(inferred, unsure=(*inferred.unsure, note)), load_draft(inferred.draft)


def _elsewhere(verdicts: Sequence[Verdict]) -> str:
    """Return the fields whose values mostly do not stand in their document, as a clause."""
    missing = Counter(field for verdict in verdicts for field in verdict.not_found)
    fields = [field for field, count in missing.items() if count > 0.5 * len(verdicts)]
    whose = f"the values of {', '.join(fields)}" if fields else "many values"
    return f"{whose} do not stand in the text (can they be known from it?); "


def _summarise(folder: Path, source: Source, inferred: Inferred, parts: Parts) -> FolderSummary:
    forms = count_read((row.forms, True) for row in source.rows if isinstance(row.answer, Mapping))
    candidate = any(not row.known for row in (*parts.val, *parts.test))
    return FolderSummary(
        folder=folder,
        source=source.what,
        rows=len(source.rows),
        facts=(*inferred.facts, *forms.lines()),
        unsure=(*source.notes, *inferred.unsure),
        left_out=tuple((row.id, why) for row, why in inferred.left_out),
        sizes=(len(parts.train), len(parts.val), len(parts.test)),
        examples=len(inferred.draft.examples),
        candidate=candidate,
        logged=parts.logged,
        chats=parts.chats,
        text=inferred.draft.schema is None,
    )


def _files(inferred: Inferred, parts: Parts, summary: FolderSummary) -> dict[str, bytes]:
    files = {"task.py": write_task_file(inferred.draft).encode()}
    load_draft(inferred.draft)
    files |= list_files(inferred.draft.registers)
    if not parts.chats:
        files["train.jsonl"] = _lines(map(_to_learn, parts.train))
    if parts.logged:
        files["traces.jsonl"] = _lines(as_row(row.chat) for row in parts.train if row.chat)
    for name, rows in (("val", parts.val), ("test", parts.test)):
        if rows:
            files[f"{name}.jsonl"] = _lines(_held_out(row, parts.chats) for row in rows)
    if inferred.left_out:
        files["left-out.jsonl"] = _lines(
            {"id": row.id, "document": row.document, "answer": row.answer, "reason": why}
            for row, why in inferred.left_out
        )
    files |= {name: text.encode() for name, text in _recipes(inferred, parts).items()}
    return {**files, "README.md": write_readme(summary, list(files)).encode()}


def _lines(rows: Any) -> bytes:
    return b"".join(map(jsonl.line, rows))


def _to_learn(row: SourceRow) -> dict[str, Any]:
    answer = {} if row.answer is None else {"gold" if row.known else "recorded_label": row.answer}
    return {"id": row.id, "document": row.document, **answer}


def _held_out(row: SourceRow, chats: bool) -> dict[str, Any]:
    """Return a row with its answer as gold; `confirmed` says whether a person gave it."""
    gold = {"gold": row.answer, "confirmed": row.known}
    if chats and isinstance(row.chat, Trace):
        return {**as_row(replace(row.chat, gold=None)), **gold}
    return {"id": row.id, "document": row.document, **gold}


def _recipes(inferred: Inferred, parts: Parts) -> dict[str, str]:
    """Return the recipes that the rows allow, pointing at the folder's files."""
    val = "val.jsonl" if parts.val else None
    recorded = any(row.answer is not None and not row.known for row in parts.train)
    longest = max(len(row.document.encode()) for row in inferred.rows) / BYTES_A_TOKEN
    longest += len(inferred.draft.instructions) / BYTES_A_TOKEN + inferred.draft.max_answer_tokens
    common: dict[str, str | int | None] = {"val": val}
    limits = {"max_tokens": max(ROW_TOKENS, -(-int(longest * 1.25) // 1024) * 1024)}
    steps = max(1, min(10, len(parts.train) * 2 // 4 // 10))
    common |= {**limits, "warmup_steps": steps}
    own: dict[str, recipe_files.Keys] = {}
    if parts.chats:
        own["sft"] = {"data": "traces.jsonl", "learn": "chats"}
        own["filtered_sft"] = {"prompt": "trace"}
    else:
        if inferred.draft.schema is None or any(row.answer for row in parts.train):
            own["sft"] = {"learn": "recorded_label"} if recorded else {}
        if parts.logged or recorded:
            traces = "traces.jsonl" if parts.logged else "train.jsonl"
            own["filtered_sft"] = {"traces": traces}
        own["distill"] = {"teacher": "recorded"} if recorded else {}
        own["grpo"] = {}
    texts = {
        name: recipe_files.with_keys(recipe_files.packaged(name), {**common, **keys})
        for name, keys in own.items()
    }
    if parts.test and not parts.chats:
        texts["compare"] = _comparison(parts, limits, steps)
    return {f"{name}.toml": text for name, text in texts.items()}


def _comparison(parts: Parts, limits: recipe_files.Keys, steps: int) -> str:
    """Return the comparison's file; a log's rows are the traces of filtered_sft."""
    traces, val = "traces.jsonl" if parts.logged else None, "val.jsonl" if parts.val else None
    keys = {**limits, "traces": traces, "val": val}
    text = recipe_files.with_keys(recipe_files.packaged("compare"), keys)
    for table in ("sft", "distill", "filtered_sft"):
        text = recipe_files.with_keys(text, {"warmup_steps": steps}, table)
    return text
