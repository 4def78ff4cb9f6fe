"""Lists of names: read with clear mistakes, and searched for what a document may mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from bound_answers import RECEIPT, byte_chat, draw, reaches, task_of

import offapi
from offapi.constrain import Constraints
from offapi.constrain.register import Register, read_register
from offapi.errors import ConfigError
from offapi.task.load import load_task

NAMES = (
    "Times Bookstores",
    "Citta Mall",
    "Ace Hardware",
    "Marble Books",
    "Golden Arches Restaurants",
    "F21",
)
VENDOR: dict[str, Any] = {
    "type": "object",
    "properties": {"vendor": {"type": ["string", "null"]}},
    "required": ["vendor"],
}


def test_printed_names_are_candidates_whatever_their_case_and_marks() -> None:
    found = Register.of(NAMES).candidates(RECEIPT)
    assert found == ["Times Bookstores", "Citta Mall", "F21"]
    assert Register.of(("TIMES BOOK", "OOKSTORES")).candidates("TIMES BOOKSTORES LOT") == [
        "TIMES BOOK",
        "OOKSTORES",
    ]  # nearly printed: a scan may join words


def test_a_short_name_counts_as_a_whole_word_only() -> None:
    register = Register.of(("LOT", "OT F", "CIT"))
    assert register.candidates("LOT F21, CITTA MALL")[:1] == ["LOT"]
    assert "CIT" not in register.candidates("LOT F21, CITTA MALL")


def test_a_name_with_a_scans_wrong_letters_is_a_candidate() -> None:
    assert Register.of(NAMES).candidates("T1MES B0OKSTORES\nTOTAL 3.00")[0] == "Times Bookstores"


def test_where_no_name_is_printed_the_nearest_are_candidates() -> None:
    names = tuple(f"Company {i} Limited" for i in range(200)) + NAMES
    found = Register.of(names).candidates("GOLDEN ARCHES\nTOTAL 3.00")
    assert found[0] == "Golden Arches Restaurants"
    assert len(found) <= 8


def test_an_empty_document_still_has_candidates() -> None:
    assert Register.of(NAMES).candidates("")


@pytest.mark.parametrize(
    ("name", "content", "column", "where", "says"),
    [
        ("a.txt", "Ace\n\nBell\nAce\n", None, "line 4", "already the name of line 1"),
        ("a.csv", "id,name\n1,Ace\n2,\n", "name", "line 3", "the name is empty"),
        ("a.csv", "id,nam\n1,Ace\n", "name", "line 1", "no column 'name'"),
        ("a.jsonl", '{"name":"Ace"}\n{"nme":"B"}\n', "name", "line 2", "no column 'name'"),
        ("a.jsonl", '{"name":"Ace"}\n{"name":3}\n', "name", "line 2", "must be a text"),
        ("a.jsonl", "Ace\n", "name", "line 1", "not valid JSON"),
        ("a.txt", "", None, "a.txt", "no names"),
        ("a.txt", None, None, "a.txt", "cannot read the list"),
    ],
)
def test_mistakes_in_a_list_are_named_with_file_and_line(
    tmp_path: Path, name: str, content: str | None, column: str | None, where: str, says: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_register(offapi.one_of(path, column))
    assert where in caught.value.where
    assert str(path) in caught.value.where
    assert says in caught.value.what


def test_a_list_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("Ace\n")
    assert read_register(offapi.one_of(path)).names == ("Ace",)
    path.write_text("Ace\nBell\n")
    assert read_register(offapi.one_of(path)).names == ("Ace", "Bell")


def test_answers_are_names_of_the_list_or_null(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    (tmp_path / "model").mkdir()
    chat = byte_chat(tmp_path / "model")
    bind = {"vendor": offapi.one_of(tmp_path / "names.txt")}
    start = Constraints.of(task_of(VENDOR, bind=bind), chat, "register").start(RECEIPT)
    drawn = set()
    for seed in range(20):
        matcher = start(0)
        assert matcher is not None
        drawn.add(orjson.loads(draw(matcher, chat, seed, 96))["vendor"])
    assert drawn == {"Times Bookstores", "Citta Mall", "F21", None}
    for said, fits in (("Times Bookstores", True), ("Ace Hardware", False), ("TIMES", False)):
        matcher = start(0)
        assert matcher is not None
        assert reaches(matcher, chat, f'{{"vendor":"{said}"}}') is fits


def test_a_relative_list_is_beside_the_task_file(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "import offapi\nfrom offapi.checks import is_json\n"
        "task = offapi.Task('t', 'Read.', {'type': 'object', 'properties': {'a': {'type':"
        " 'string'}}}, {'json': (is_json, 1.0)}, {'a': 'text'},"
        " bind={'a': offapi.one_of('names.txt')})\n"
    )
    (tmp_path / "names.txt").write_text("Ace\n")
    bound = load_task(tmp_path / "task.py").bind["a"]
    assert isinstance(bound, type(offapi.one_of("names.txt")))
    assert read_register(bound).names == ("Ace",)
