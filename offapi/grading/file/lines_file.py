"""The rows to grade as a file of lines, which is read in pieces by many processes.

A file of lines is graded where it is. The rows of every other file (one array, gzip, UTF-16, labels
with their documents) are written next to the graded file first, for its owner alone, and removed
at the end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from offapi.data import documents
from offapi.data.row_kind import GRADE_LABELS, is_label
from offapi.errors import ConfigError, DataError
from offapi.files import jsonl
from offapi.files.jsonl import JsonRow
from offapi.grading import rows
from offapi.task import Task
from offapi.teachers.labels_file import Label, read_labels, settle_labels
from offapi.text.display import plural
from offapi.workers.removed import removed_at_end

NOT_LABELS = "only a labels file needs the documents it answers."


@contextmanager
def lines_file(traces: Path, labelled: Path | None, out: Path, task: Task) -> Iterator[Path]:
    """Give a file of lines with the rows of `traces` while the block lasts.

    `labelled` are the documents that a labels file answers. Raise DataError for a file that is not
    of traces, of answered documents, or of labels.
    """
    found = _rewritten(traces, labelled, task)
    if found is None:
        yield traces
        return
    copy = out.with_name(f"{out.name}.part.rows")
    with suppress(OSError):
        copy.parent.mkdir(parents=True, exist_ok=True)
    with removed_at_end(copy):
        jsonl.write(copy, found)
        yield copy


def _rewritten(
    traces: Path, labelled: Path | None, task: Task
) -> Sequence[Mapping[str, Any]] | None:
    """Return the rows that have to be written out; None where `traces` can be graded as it is."""
    plain = jsonl.is_lines(traces)
    found = _lines(traces) if plain else iter(jsonl.read(traces))
    first = next(found, None)
    if first is not None and is_label(first):
        return _answers(traces, labelled, task)
    if labelled is not None:
        raise ConfigError(NOT_LABELS, where=f"--documents {labelled}", next_step="Leave it out.")
    _check_answered(traces, first, found)
    if plain:
        return None
    read = jsonl.read(traces)
    jsonl.unique_ids(read)
    for row in read:
        _check(row, task)
    return [row.value for row in read]


def _check(row: JsonRow, task: Task) -> None:
    """Raise DataError, with the place in the file that the user named, for an invalid row."""
    trace = rows.of(row, task)
    try:
        if trace.gold is not None:
            task.check_gold(trace.gold, row=trace.id)
    except DataError as error:
        raise row.error(error.what, "gold", error.next_step) from None


def _lines(path: Path) -> Iterator[JsonRow]:
    """Yield the rows of a file of lines up to the first that is not JSON, which grading names."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield jsonl.parse(path, number, line.removeprefix(b"\xef\xbb\xbf"))
                except DataError:
                    return


def _check_answered(path: Path, first: JsonRow | None, others: Iterator[JsonRow]) -> None:
    """Raise DataError for a file of documents without any model's answer."""
    count, gold = 0, 0
    row = first
    while row is not None:
        if "document" not in row.value or _has(row, "messages") or _has(row, "recorded_label"):
            return
        documents.check_keys(row)
        count, gold = count + 1, gold + _has(row, "gold")
        row = next(others, None)
    if not count:
        return
    what = f"the file has {plural(count, 'document')}, {gold:,} with gold, and no model's answer."
    step = (
        "Gold is what answers are compared with: name this file as --gold, and answers as --traces"
        ' (traces, documents with "recorded_label", or labels).'
    )
    raise DataError.at(what, path=path, next_step=step)


def _has(row: JsonRow, name: str) -> bool:
    return row.value.get(name) is not None


def _answers(path: Path, labelled: Path | None, task: Task) -> list[dict[str, Any]]:
    """Return the labels as traces, with the gold of their documents; failed ones have no answer."""
    if labelled is None:
        what = "the file holds labels: answers without their documents."
        raise DataError.at(what, path=path, next_step=GRADE_LABELS)
    labels = list(settle_labels(read_labels(path).labels).values())
    known = {row.id: row for row in documents.read(labelled)}
    missing = [label.id for label in labels if label.id not in known]
    if missing:
        what = f"{plural(len(missing), 'label')} without a document there, first {missing[0]!r}."
        step = "Name the documents that were labelled."
        raise DataError.at(what, path=labelled, next_step=step)
    times = Counter(label.id for label in labels)
    numbers: defaultdict[str, int] = defaultdict(int)
    found = []
    for label in labels:
        numbers[label.id] += 1
        several = f"-{numbers[label.id]}" if times[label.id] > 1 else ""
        found.append(_trace(label, f"{label.id}{several}", known[label.id], task))
    return found


def _trace(label: Label, id: str, document: documents.Document, task: Task) -> dict[str, Any]:
    answer = {"role": "assistant", "content": label.output}
    row = {"id": id, "messages": [*task.messages(document.text), answer], "group": label.id}
    source = {"format": "labels", "model": label.teacher, "status": label.status}
    gold = {} if document.gold is None else {"gold": document.gold}
    return {**row, **gold, "source": source}
