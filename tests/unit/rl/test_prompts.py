"""Documents to train on and to hold out: never the same, and gold must be usable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import tiny_llama

from offapi.chat.chat import Chat
from offapi.checks import is_json
from offapi.errors import DataError
from offapi.files import jsonl
from offapi.rl import prompts
from offapi.task import Task

TASK = Task(
    "t",
    "Read.",
    {"type": "object", "properties": {"a": {}}},
    {"json": (is_json, 1.0)},
    {"a": "text"},
    max_answer_tokens=10,
)


class Said:
    """A Progress that stores what is reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str = "") -> None:
        self.lines.append(text)

    def progress(self, title: str, total: int | None = None) -> Any:
        raise AssertionError("nothing is counted here")


def written(path: Path, count: int, first: int = 0, **more: Any) -> Path:
    rows = ({"id": f"d{i}", "document": f"text {i}", **more} for i in range(first, first + count))
    path.write_bytes(b"".join(map(jsonl.line, rows)))
    return path


@pytest.mark.parametrize(("count", "held"), [(9, 8), (80, 8), (100, 10), (204, 20), (900, 64)])
def test_a_tenth_is_held_out_within_limits(tmp_path: Path, count: int, held: int) -> None:
    rows, kept = prompts.read(written(tmp_path / "d.jsonl", count), None, TASK, 0)
    assert len(kept) == held
    assert sorted(row.id for row in (*rows, *kept)) == sorted(f"d{i}" for i in range(count))


def learner(folder: Path, **reads: str) -> Path:
    """Return the adapter of a run that read those files."""
    (folder / "run" / "adapter").mkdir(parents=True)
    (folder / "run" / "manifest.json").write_bytes(
        orjson.dumps({"config": {"task": "t.py", **reads}})
    )
    return folder / "run" / "adapter"


def test_what_the_adapter_has_learned_is_not_held_out(tmp_path: Path) -> None:
    path = written(tmp_path / "d.jsonl", 100)
    adapter = learner(tmp_path, data=str(written(tmp_path / "few.jsonl", 60)))
    _, free = prompts.read(path, None, TASK, 0)
    rows, held = prompts.read(path, None, TASK, 0, adapter)
    assert any(int(row.id[1:]) < 60 for row in free)
    assert len(held) == 10
    assert all(int(row.id[1:]) >= 60 for row in held)
    assert len(rows) == 90


def test_an_adapter_that_knows_too_much_needs_a_val_file(tmp_path: Path) -> None:
    path = written(tmp_path / "d.jsonl", 100)
    said = [{"role": "user", "content": "text 4"}, {"role": "assistant", "content": "{}"}]
    (tmp_path / "traces.jsonl").write_bytes(jsonl.line({"id": "t", "messages": said}))
    adapter = learner(
        tmp_path,
        data=str(written(tmp_path / "most.jsonl", 95)),
        traces=str(tmp_path / "traces.jsonl"),
    )
    with pytest.raises(
        DataError, match=r"the adapter has learned it \(5 such documents\)"
    ) as caught:
        prompts.read(path, None, TASK, 0, adapter)
    assert "`val`" in str(caught.value)
    val = written(tmp_path / "v.jsonl", 9, first=200)
    assert len(prompts.read(path, val, TASK, 0, adapter)[1]) == 9
    (tmp_path / "traces.jsonl").write_bytes(
        jsonl.line({"id": "t", "messages": [{**said[0], "content": "text 204"}, said[1]]})
    )
    with pytest.raises(
        DataError,
        match=r"'d204' is held out, but the adapter has learned it \(1 such document\)",
    ):
        prompts.read(path, val, TASK, 0, adapter)


@pytest.mark.parametrize(
    "manifest", [b"", b"{", b'{"config": 3}', b'{"config": {"data": "/nowhere.jsonl"}}']
)
def test_an_adapter_without_its_run_excludes_nothing(tmp_path: Path, manifest: bytes) -> None:
    path = written(tmp_path / "d.jsonl", 100)
    adapter = learner(tmp_path)
    (adapter.parent / "manifest.json").write_bytes(manifest)
    assert prompts.read(path, None, TASK, 0, adapter) == prompts.read(path, None, TASK, 0)


def test_which_are_held_out_depends_on_the_seed_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "d.jsonl", 100)
    drawn = [[row.id for row in prompts.read(path, None, TASK, seed)[1]] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_file_of_its_own_is_held_out_whole(tmp_path: Path) -> None:
    train, val = written(tmp_path / "d.jsonl", 5), written(tmp_path / "v.jsonl", 3, first=5)
    rows, held = prompts.read(train, val, TASK, 0)
    assert [row.id for row in rows] == ["d0", "d1", "d2", "d3", "d4"]
    assert [row.id for row in held] == ["d5", "d6", "d7"]


def test_a_document_in_both_is_refused_by_its_text(tmp_path: Path) -> None:
    train = written(tmp_path / "d.jsonl", 5)
    val = tmp_path / "v.jsonl"
    val.write_bytes(jsonl.line({"id": "other", "document": "text 3"}))
    with pytest.raises(DataError, match="document 'd3' is also held out") as error:
        prompts.read(train, val, TASK, 0)
    assert str(train) in error.value.where


def test_too_few_documents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no document is left to train on"):
        prompts.read(written(tmp_path / "d.jsonl", 8), None, TASK, 0)


def test_gold_that_cannot_be_compared_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "d.jsonl", 20, gold={"b": "x"})
    with pytest.raises(DataError, match="gold field 'a' is missing"):
        prompts.read(path, None, TASK, 0)


def test_prompts_leave_room_for_the_answer(tmp_path: Path) -> None:
    chat = Chat.load(tiny_llama.write_chat(tmp_path / "model"))
    rows = prompts.read(written(tmp_path / "d.jsonl", 12), None, TASK, 0)[0]
    progress = Said()
    length = len(chat.prompt(TASK.messages(rows[0].text)))
    made = prompts.prompts(rows, TASK, chat, length + 11, "refuse", progress)
    assert [prompt.tokens for prompt in made] == [
        chat.prompt(TASK.messages(row.text)) for row in rows
    ]
    shortest = min(len(prompt.tokens) for prompt in made)
    with pytest.raises(DataError, match="more than max_tokens"):
        prompts.prompts(rows, TASK, chat, shortest + 9, "refuse", progress)
    longer = [*rows[:1], type(rows[0])("long", "x" * 200)]
    kept = prompts.prompts(longer, TASK, chat, shortest + 30, "drop", progress)
    assert [prompt.row.id for prompt in kept] == [rows[0].id]
    assert "Dropped 1 of 2 documents" in progress.lines[-1]
