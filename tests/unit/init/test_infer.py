"""What `init --from` infers from answers, and the task file that it writes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from recipe_folder import offapi, write_jsonl

from offapi.data.documents import KnownAnswer
from offapi.init.infer_schema import infer_schema
from offapi.init.infer_task import infer_task
from offapi.init.python_text import PythonCall, write_value
from offapi.init.recipe_files import packaged, with_keys
from offapi.init.source import SourceRow
from offapi.init.split import split_rows
from offapi.init.task_file import write_task_file
from offapi.task import load_task

HOSTILE = (
    '"""', "it's", 'say "hi"', "back\\slash", "tab\tx", "two\nlines", 'ends with "', "\u200b",
    "日本語" * 30, "x" * 100, "nul\x01", "🎉", "'''", "{x} %s", " spaces ", "a\r\nb", "\\", "\\N{x}",
)  # fmt: skip


def rows(answers: list[Any], documents: list[str] | None = None) -> list[SourceRow]:
    texts = documents or [f"document {i}" for i in range(len(answers))]
    pairs = enumerate(zip(texts, answers, strict=True))
    return [SourceRow(f"r{i}", text, answer) for i, (text, answer) in pairs]


def schema_of(answers: list[Mapping[str, Any]]) -> dict[str, Any]:
    return infer_schema(answers, ["?"] * len(answers)).schema


def test_types_nulls_choices_and_dates_are_found() -> None:
    answers: list[Mapping[str, Any]] = [
        {
            "team": ["a", "b"][i % 2],
            "total": [1.5, 2, None][i % 3],
            "count": i,
            "day": f"2026-01-{i + 1:02d}",
            "name": f"Shop {i}",
            "ok": i % 2 == 0,
            "note": None,
        }
        for i in range(12)
    ]
    schema = schema_of(answers)
    assert schema["properties"] == {
        "team": {"type": "string", "enum": ["a", "b"]},
        "total": {"type": ["number", "null"]},
        "count": {"type": "integer"},
        "day": {"type": "string", "format": "date"},
        "name": {"type": "string"},
        "ok": {"type": "boolean"},
        "note": {"type": ["string", "null"]},
    }
    assert schema["required"] == list(answers[0])
    assert schema["additionalProperties"] is False


def test_values_copied_from_many_documents_are_no_choice() -> None:
    """Eight vendors occur five times each: they are read, and a ninth may come."""
    vendors = [f"Shop {i % 8}" for i in range(40)]
    found = infer_schema([{"vendor": v} for v in vendors], [f"Bill of {v}" for v in vendors])
    assert found.schema["properties"]["vendor"] == {"type": "string"}
    found = infer_schema([{"vendor": v} for v in vendors], ["Bill"] * 40)
    assert len(found.schema["properties"]["vendor"]["enum"]) == 8


def test_lists_objects_and_optional_fields_are_found() -> None:
    lines = [{"item": "tea", "price": 1.5}, {"item": "rye", "price": None}]
    answers: list[Mapping[str, Any]] = [{"lines": lines, "total": {"value": 2.5}}] * 3
    schema = schema_of([*answers, {"lines": [], "total": {"value": 1, "tax": 0}}])
    item = schema["properties"]["lines"]["items"]
    assert item["properties"]["price"] == {"type": ["number", "null"]}
    assert item["required"] == ["item", "price"]
    total = schema["properties"]["total"]
    assert total["properties"] == {"value": {"type": "number"}, "tax": {"type": "integer"}}
    assert total["required"] == ["value"]


def test_rows_unlike_nearly_all_others_are_named_and_do_not_widen_the_schema() -> None:
    answers: list[Mapping[str, Any]] = [{"total": i + 0.5, "vendor": "A"} for i in range(57)]
    odd: list[Mapping[str, Any]] = [
        {"total": "12.50", "vendor": "A"},
        {"vendor": "A"},
        {"total": 1, "vendor": "A", "comment": "?"},
    ]
    shape = infer_schema([*answers, *odd], ["?"] * 60)
    assert shape.unlike == {
        57: "'total' is of the type string",
        58: "'total' is missing",
        59: "only few answers have 'comment'",
    }
    assert shape.schema["properties"]["total"] == {"type": "number"}
    few = infer_schema([*answers[:5], odd[0]], ["?"] * 6)
    assert not few.unlike, "of six rows none is an exception"
    assert "total has values of different types: number, string" in few.unsure


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([f"INV-{i}" for i in range(9)], "exact"),
        ([f"Shop {i} Ltd" for i in range(9)], "text"),
        ([f"The parcel {i} arrived broken and the customer wants a refund" for i in range(9)], "fuzzy"),
        ([f"2026-02-{i + 1:02d}" for i in range(9)], "date"),
        (["red", "blue", "red"] * 4, "choice"),
        ([i / 4 for i in range(9)], "number"),
        ([True, False] * 5, "boolean"),
        ([["a"], []] * 5, "list"),
    ],
)  # fmt: skip
def test_a_field_gets_the_kind_of_its_values(values: list[Any], kind: str) -> None:
    inferred = infer_task("t", rows([{"field": value} for value in values]))
    assert inferred.draft.match == {"field": kind}


def test_instructions_are_the_commonest_system_prompt() -> None:
    some = [SourceRow(f"r{i}", "d", {"a": "x"}, system="Sort." if i else "Old.") for i in range(9)]
    inferred = infer_task("t", some)
    assert inferred.draft.instructions == "Sort."
    assert "1 of 9 rows has another system prompt, or none" in inferred.unsure
    written = infer_task("t", rows([{"team": "a"}, {"team": "b"}] * 5)).draft.instructions
    assert "team: one of a, b" in written


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("where", ["value", "key", "document", "answer"])
def test_a_task_file_holds_any_text_and_is_formatted(tmp_path: Path, text: str, where: str) -> None:
    """The file loads, gives the text back, and `ruff format` changes nothing."""
    answer: KnownAnswer = {"key": {text if where == "key" else "k": "v"}}
    if where == "answer":
        answer = f"a {text} b"
    if where == "value":
        answer = {"field": text or "x"}
    document = f"{text} d" if where == "document" else "d"
    found = infer_task("t", rows([answer] * 4)).draft
    draft = type(found)(**{**vars(found), "examples": ((document, answer),), "instructions": text})
    path = tmp_path / "task.py"
    path.write_text(write_task_file(draft), "utf-8", newline="")
    if text.strip():
        task = load_task(path)
        assert task.instructions == text
        assert task.examples[0].document == document
        assert task.examples[0].answer == answer
    ruff = Path(sys.executable).with_name("ruff")
    line = [str(ruff), "format", "--isolated", "--diff", str(path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_values_are_broken_where_a_line_is_full() -> None:
    assert write_value(("a",)) == '("a",)'
    long = write_value(PythonCall("f", [("", "x" * 50), ("key", ["y" * 40])]), before="v = ")
    assert long == f'f(\n    "{"x" * 50}",\n    key=["{"y" * 40}"],\n)'


def test_groups_and_near_duplicates_are_not_split() -> None:
    text = " ".join(f"word{i}" for i in range(60))
    some = rows([{"a": "x"}] * 40, [f"{text} {'end' if i % 2 else 'fin'}" for i in range(4)] +
                [f"another document number {i}" for i in range(36)])  # fmt: skip
    parts = split_rows(some)
    sides = [{row.id for row in part} & {"r0", "r1", "r2", "r3"} for part in parts]
    assert sorted(map(len, sides)) == [0, 0, 4]
    assert sorted(row.id for part in parts for row in part) == sorted(row.id for row in some)
    assert [len(part) for part in split_rows(rows([{"a": "x"}] * 4))] == [2, 1, 1]


def test_keys_are_set_where_they_stand() -> None:
    text = with_keys(packaged("compare"), {"traces": "t.jsonl", "max_tokens": 4096})
    assert '\ntraces = "t.jsonl"  # logs of your agent' in text
    text = with_keys(text, {"warmup_steps": 7}, "sft")
    assert text.count("warmup_steps = 7 ") == 1
    assert text.index("[sft]") < text.index("warmup_steps = 7") < text.index("[distill]")
    assert "\n# val =" in with_keys(packaged("sft"), {"val": None})
    assert '\nlearn = "chats"\n' in with_keys(packaged("sft"), {"learn": "chats"})


@pytest.mark.parametrize(
    "record",
    [
        {"name": "llm", "attributes": {"gen_ai.system": "openai"}},
        {"custom_id": "1", "body": {"model": "m"}, "url": "/v1"},
        {"text": "hi there", "label": "x", "meta": {"page": 1}},
    ],
)
def test_records_that_nothing_reads_are_not_taken_for_a_table(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    path = write_jsonl(tmp_path / "log.jsonl", [record] * 5)
    done = offapi("init", "my-task", "--from", str(path), cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "offapi traces import" in done.stderr
    assert not (tmp_path / "my-task").exists()


def test_another_tools_rows_with_an_id_and_messages_are_imported(tmp_path: Path) -> None:
    """Rows of openai-ft that have an id, and end as they should, are traces; others are not."""
    turns = [{"role": "user", "content": "hi there"}]
    path = write_jsonl(tmp_path / "log.jsonl", [{"id": "1", "messages": turns, "spend": 0.1}] * 5)
    done = offapi("init", "my-task", "--from", str(path), cwd=tmp_path)
    assert done.returncode == 1
    assert "the last message is not the assistant's" not in done.stderr
    assert "known format" in done.stderr


def test_a_list_is_proposed_where_a_fields_values_repeat(tmp_path: Path) -> None:
    shops = [f"Shop {'abcdefghijklmnopqrstuvwxyz'[i % 26]} Ltd" for i in range(80)]
    learned = [
        {"id": f"r{i}", "document": f"{shop}, {i} items", "gold": {"shop": shop, "note": f"n {i}x"}}
        for i, shop in enumerate(shops)
    ]
    write_jsonl(tmp_path / "rows.jsonl", learned)
    made = offapi("init", str(tmp_path / "task"), "--from", str(tmp_path / "rows.jsonl"))
    assert made.returncode == 0, made.stderr
    task = load_task(tmp_path / "task" / "task.py")
    assert set(task.bind) == {"shop"}
    names = (tmp_path / "task" / "shop.txt").read_text().split("\n")[:-1]
    assert set(names) <= set(shops)
    assert len(names) == len(set(names))
    assert (
        "shop: its values repeat" in made.stderr + made.stdout or "Shop: its values" in made.stderr
    )
    assert "held-out values are in it" in (tmp_path / "task" / "README.md").read_text()
