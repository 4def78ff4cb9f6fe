"""Rows of JSON in every layout; ids of whole numbers; a bad row is named by place and cause."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offapi.errors import DataError
from offapi.files import contents, jsonl

VALUES: list[dict[str, Any]] = [
    {"id": "1", "document": "a } { [\n\"b\"", "gold": {"a": [{"b": None}]}},
    {"id": "2", "document": "ä\\", "gold": {}},
    {"id": "3", "document": "{", "gold": {"a": []}},
]  # fmt: skip
LAYOUTS: dict[str, Callable[[Any], str]] = {
    "lines": lambda rows: "\n".join(map(json.dumps, rows)),
    "blank lines": lambda rows: "\n\n \r\n".join(map(json.dumps, rows)) + "\n\n",
    "array": json.dumps,
    "indented array": lambda rows: "\n" + json.dumps(rows, indent=1) + "\n",
    "array of lines": lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]",
    "indented": lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows),
    "indented by tabs": lambda rows: "".join(json.dumps(row, indent="\t") for row in rows),
}
FIELDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | FIELDS
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=3)
)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(
    rows=st.lists(st.dictionaries(FIELDS, TREES, min_size=1, max_size=3), min_size=2, max_size=3)
)
def test_every_layout_reads_the_same_rows(
    tmp_path: Path, layout: str, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path / "d.json"
    for each in (VALUES, rows):
        path.write_text(LAYOUTS[layout](each), encoding="utf-8")
        assert [row.value for row in jsonl.read(path)] == each


def test_one_object_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps(VALUES[0], indent=2))
    assert [row.value for row in jsonl.read(path)] == VALUES[:1]


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ('[{"id":"1"},{"id":2,}]', "", "not one whole JSON array"),
        ('[{"id":"1"},\n{"id":"2"}', ", line 2", "',' or ']' is missing"),
        ('[{"id":"1"}]\n[{"id":"2"}]', ", line 1", "there is more after the array"),
        ('[{"id":"1"}, 7]', ", element 2", "a JSON int, not an object"),
        ('{"id":"1"}\n{"id":"2"', ", line 2", "not JSON: "),
        ("{\"id\":\"1\"}\n{'id':'2'}", ", line 2", "column 2 (')"),
        ('{"id":"1"}\n{"id":None}', ", line 2", "column 7 (None)"),
        (
            '{\n "id":"1"\n}\n{\n "id":"2",\n}\n{\n "id":"3"\n}',
            ", line 4",
            "at column 10 of its line 2",
        ),
        ('{\n "id":"1",\n', ", line 1", "not JSON: "),
    ],
)
def test_a_bad_row_is_named_by_place_and_cause(
    tmp_path: Path, text: str, where: str, said: str
) -> None:
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        jsonl.read(path)
    assert caught.value.where.startswith(f"{path}{where}")
    assert said in caught.value.what


def test_whole_numbers_are_ids_and_1_is_the_same_as_its_text(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"id":1}\n{"id":"x"}\n{"id":7.0}\n{"id":-3}\n')
    rows = jsonl.read(path)
    jsonl.unique_ids(rows)
    assert [row.id for row in rows] == ["1", "x", "7", "-3"]
    path.write_text('[{"id":"1"},{"id":1}]')
    with pytest.raises(DataError) as caught:
        jsonl.unique_ids(jsonl.read(path))
    assert caught.value.where == f"{path}, element 2, field 'id'"
    assert "id '1' was already used in element 1 (a whole number as an id" in caught.value.what


def test_nan_in_another_field_is_no_error_but_in_a_value_that_counts_it_is(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"id":"1","score":NaN,"gold":{"a":1}}\n{"id":"2","gold":{"b":[-Infinity]}}\n')
    first, second = jsonl.read(path)
    assert first.optional("gold", dict) == {"a": 1}
    with pytest.raises(DataError, match="NaN and Infinity") as caught:
        second.optional("gold", dict)
    assert caught.value.where == f"{path}, line 2, field 'gold.b.0'"


def test_a_row_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "LARGEST", 1 << 20)
    path = tmp_path / "d.jsonl"
    path.write_text('{"id":"1"}\n{"id":"' + "x" * (1 << 20) + '"}\n')
    with pytest.raises(DataError, match="one row must not exceed 1 MiB") as caught:
        jsonl.read(path)
    assert caught.value.where == f"{path}, line 2"


def test_a_row_that_cannot_be_written_says_which(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"a": deep}
    with pytest.raises(DataError, match="row 'x' cannot be written as JSON: Recursion"):
        jsonl.write(tmp_path / "d.jsonl", [{"id": "x", "source": deep}])
    assert not list(tmp_path.iterdir())
