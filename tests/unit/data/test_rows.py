"""What a row is: one rule for every reader of files that may hold documents or traces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import recipe_folder

from offapi.checks import is_json
from offapi.compare import config as compare_config
from offapi.compare import data as compare_data
from offapi.data.documents import Document
from offapi.data.rows import Row, as_row, is_trace, read_rows, row_text
from offapi.data.traces import Trace
from offapi.errors import DataError
from offapi.evaluation import test_set
from offapi.files import jsonl
from offapi.grading import rows as grading_rows
from offapi.grading.file import inputs
from offapi.recipes import filtered_sft
from offapi.report import document_files
from offapi.report.document_files import DocumentSource
from offapi.rl import learned_documents
from offapi.task import Task

TASK = Task(
    "t",
    "Read.",
    {"type": "object", "properties": {"shop": {"type": "string"}}, "required": ["shop"]},
    {"json": (is_json, 1.0)},
    {"shop": "text"},
)
GOLD = {"shop": "Ashu"}
CHAT = [{"role": "user", "content": "from Ashu"}, {"role": "assistant", "content": '{"shop":"x"}'}]
DOCUMENT = {"id": "d", "document": "sold by Bibo", "gold": GOLD, "recorded_label": GOLD}
TRACE = {"id": "t", "messages": CHAT, "gold": GOLD}
BOTH = {**DOCUMENT, **TRACE, "id": "b"}
TEXTS = {"d": "sold by Bibo", "t": "from Ashu"}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(map(jsonl.line, rows)))
    return path


def for_test_set(path: Path) -> dict[str, str]:
    return {row.id: row_text(row) for row in test_set.read(path, TASK)}


def for_evaluation_of_grading(path: Path) -> dict[str, str]:
    return dict(inputs.texts(path))


def for_report(path: Path) -> dict[str, str]:
    return document_files.read_texts([DocumentSource(path)], {}, ["d", "t", "b"])[0]


def for_grading(path: Path) -> dict[str, str]:
    lines = enumerate(path.read_bytes().splitlines(), start=1)
    found = [grading_rows.parse(line, path, number, TASK) for number, line in lines]
    return {trace.id: trace.document for trace in found}


def for_filtered_sft(path: Path) -> dict[str, str]:
    found = filtered_sft.read_traces(path, TASK)
    return {trace.id: trace.document for trace in found}


def for_comparison(path: Path) -> dict[str, str]:
    folder = path.parent
    (folder / "task.py").write_text(recipe_folder.TASK)
    (folder / "compare.toml").write_text(
        'recipe = "compare"\ntask = "task.py"\ndocuments = "train.jsonl"\ntest = "test.jsonl"\n'
        f'traces = "{path.name}"\n'
    )
    for name, count in (("train", 9), ("test", 3)):
        rows = [
            {"id": f"{name}{i}", "document": f"{name} {i} of {name}{i}", "gold": {"shop": "s"}}
            for i in range(count)
        ]
        written(folder / f"{name}.jsonl", *rows)
    found = compare_data.read_material(compare_config.load_keys(folder / "compare.toml"))
    ids = [row["id"] for row in found.traces]
    return dict(zip(ids, found.asked, strict=True))


def for_what_was_learned(path: Path) -> dict[str, str]:
    (path.parent / "run").mkdir()
    manifest = {"config": {"task": "t.py", "traces": str(path)}}
    (path.parent / "run" / "manifest.json").write_bytes(orjson.dumps(manifest))
    known = learned_documents.known(path.parent / "run" / "adapter")
    return {id: text for id, text in TEXTS.items() if text in known}


READERS: list[Callable[[Path], dict[str, str]]] = [
    for_test_set,
    for_evaluation_of_grading,
    for_report,
    for_grading,
    for_filtered_sft,
    for_comparison,
    for_what_was_learned,
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("rows", [[DOCUMENT], [TRACE], [DOCUMENT, TRACE], [TRACE, DOCUMENT]])
def test_every_reader_recognises_a_row_by_its_fields(
    read: Callable[[Path], dict[str, str]], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = read(written(tmp_path / "rows.jsonl", *rows))
    assert found == {row["id"]: TEXTS[row["id"]] for row in rows}


@pytest.mark.parametrize("read", [reader for reader in READERS if reader is not for_report])
@pytest.mark.parametrize("first", [DOCUMENT, TRACE])
def test_every_reader_refuses_a_row_that_is_both(
    read: Callable[[Path], dict[str, str]], first: dict[str, Any], tmp_path: Path
) -> None:
    path = written(tmp_path / "rows.jsonl", first, BOTH)
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.where.startswith(f"{path}, line 2")
    assert caught.value.what == 'the row has both a "document" and "messages".'
    assert caught.value.next_step.startswith('Remove "messages" if the row is a document')


def test_a_report_leaves_out_a_file_with_a_row_that_is_both(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", DOCUMENT, BOTH)
    found, notes = document_files.read_texts([DocumentSource(path)], {}, ["d", "b"])
    assert found == {}
    assert notes == [f'{path} cannot be read: the row has both a "document" and "messages".']


@pytest.mark.parametrize(
    ("value", "trace"),
    [
        (DOCUMENT, False),
        (TRACE, True),
        ({**TRACE, "document": None}, True),
        ({**DOCUMENT, "messages": None}, False),
        ({"messages": None}, True),
        ({"document": None}, False),
        ({"document": 5}, False),
    ],
)
def test_a_null_field_does_not_count(value: dict[str, Any], trace: bool) -> None:
    assert is_trace(jsonl.JsonRow(Path("f.jsonl"), 1, value)) is trace


def test_a_row_that_is_neither_shows_its_fields(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", {"id": "x", "mesages": CHAT})
    with pytest.raises(DataError, match='"document" and "messages" are both missing') as caught:
        read_rows(path)
    assert "it has id, mesages." in caught.value.next_step


def test_rows_and_folders_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows: list[Row] = [Document("d", "text", GOLD), Trace("t", tuple(CHAT), gold=GOLD)]
    path = written(tmp_path / "rows.jsonl", *map(as_row, rows))
    assert read_rows(path) == rows
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("some text")
    assert read_rows(tmp_path / "folder") == [Document("a.txt", "some text")]


def test_an_id_is_used_once_whatever_the_rows_are(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", DOCUMENT, {**TRACE, "id": "d"})
    with pytest.raises(DataError, match="id 'd' was already used in line 1"):
        read_rows(path)
