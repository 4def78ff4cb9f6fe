"""The review queue's file: appended to while people edit it, and read as documents."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from offapi.data import documents
from offapi.errors import DataError, RunError
from offapi.predict.prediction import DocumentAnswer, FieldAnswer
from offapi.serve.review_queue import ReviewQueue

FIELDS = {"shop": FieldAnswer("Ash", 0.6, (5, 8), False)}
ANSWER = DocumentAnswer("", {"shop": "Ash"}, FIELDS, False)


def add(queue: ReviewQueue, document: str) -> bool:
    return queue.add(document, ANSWER, "shop .6 < .9", "student")


def test_a_document_is_put_in_once_for_its_owner_alone(tmp_path: Path) -> None:
    queue = ReviewQueue(tmp_path / "queue.jsonl")
    assert [add(queue, text) for text in ("from Ash", "from Elm", "from Ash")] == [
        True,
        True,
        False,
    ]
    assert stat.S_IMODE(queue.path.stat().st_mode) == 0o600
    first = orjson.loads(queue.path.read_bytes().splitlines()[0])
    assert list(first) == ["id", "document", "answer", "fields", "reason", "time", "model"]
    assert first["fields"]["shop"] == FIELDS["shop"].as_row()
    again = ReviewQueue(queue.path)
    assert not add(again, "from Elm")
    assert again.added == 0


def test_what_a_person_writes_meanwhile_is_kept(tmp_path: Path) -> None:
    queue = ReviewQueue(tmp_path / "queue.jsonl")
    add(queue, "from Ash")
    row = orjson.loads(queue.path.read_bytes())
    edited = tmp_path / "edited"
    edited.write_bytes(orjson.dumps({**row, "gold": {"shop": "Ash"}}))  # without a last newline
    os.replace(edited, queue.path)  # as editors do
    add(queue, "from Elm")
    first, second = documents.read(queue.path)
    assert (first.text, first.gold) == ("from Ash", {"shop": "Ash"})
    assert (second.text, second.gold) == ("from Elm", None)


def test_two_servers_append_whole_lines(tmp_path: Path) -> None:
    queues = [ReviewQueue(tmp_path / "queue.jsonl") for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(add, queues[i % 2], f"document {i} " * 500) for i in range(40)]
    assert all(each.result() for each in done)
    assert len({row.text for row in documents.read(queues[0].path)}) == 40


def test_another_file_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "answers.jsonl"
    other.write_text('{"id": "1", "answer": {}}\n')
    with pytest.raises(DataError, match=r"'document' is missing.*one that `--ask` wrote"):
        ReviewQueue(other)
    assert other.read_text() == '{"id": "1", "answer": {}}\n'
    with pytest.raises(RunError, match="cannot be written"):
        ReviewQueue(tmp_path / "missing" / "queue.jsonl")
