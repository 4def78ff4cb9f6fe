"""One record read by an importing process, for tests of what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offapi.data.importers.records import ImportJob, RecordFile
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.importers.worker import ImportSettings, Worker
from offapi.progress import Advance

Row = dict[str, Any]

ASKED, ANSWER = "Foo Ltd\nTotal 12.50", '{"vendor":"Foo Ltd","total":12.5}'
USER = {"role": "user", "content": ASKED}
SAID = {"role": "assistant", "content": ANSWER}
FOUND = {"choices": [{"index": 0, "finish_reason": "stop", "message": SAID}]}


class Quiet:
    """A reporter that reports nothing."""

    def say(self, text: str = "") -> None: ...

    @contextmanager
    def progress(self, title: str, total: int | None = None) -> Iterator[Advance]:
        yield lambda done, note="": None


def read_rows(format: str, record: Any, **maps: str) -> list[Row | Dropped]:
    """Return what is written for a record, as the objects of its lines, or why nothing is."""
    file = RecordFile(Path("x.jsonl"), "x.jsonl", 0)
    job = ImportJob(file, 1, (json.dumps(record).encode(),), {}, 0)
    worker = Worker(ImportSettings(format, maps, None))
    return [row.dropped or json.loads(row.line) for row in worker.work(job).rows()]


def read_row(format: str, record: Any, **maps: str) -> Row:
    """Return the one row of a record."""
    (row,) = read_rows(format, record, **maps)
    assert isinstance(row, dict), row
    return row


def question_and_answer(format: str, record: Any, **maps: str) -> tuple[str, str]:
    """Return what the user asked and what was answered, of the one row of a record."""
    messages = read_row(format, record, **maps)["messages"]
    users = [message["content"] for message in messages if message["role"] == "user"]
    assert len(users) == 1
    return users[0], messages[-1]["content"]


def why_dropped(format: str, record: Any, **maps: str) -> Dropped:
    """Return why the one row of a record is dropped."""
    (row,) = read_rows(format, record, **maps)
    assert isinstance(row, Dropped), row
    return row


def serialized(name: str, content: Any, **more: Any) -> Row:
    """Return a message as LangChain serializes it."""
    path = ["langchain", "schema", "messages", name]
    return {"lc": 1, "type": "constructor", "id": path, "kwargs": {"content": content, **more}}
