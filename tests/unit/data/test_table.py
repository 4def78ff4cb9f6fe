"""Tables: what every spreadsheet and database writes is read, and one clear error per bad file."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from offapi.data.table import is_table, read_table
from offapi.errors import DataError

PLAIN = "id,text,amount\n1,Foo Ltd,12.50\n2,Bär GmbH,7\n"
CELLS = [
    {"id": "1", "text": "Foo Ltd", "amount": "12.50"},
    {"id": "2", "text": "Bär GmbH", "amount": "7"},
]


def cells(path: Path) -> list[dict[str, str]]:
    return [dict(row.cells) for row in read_table(path)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_delimiter_and_encoding_of_a_table_is_read(
    tmp_path: Path, delimiter: str, encoding: str, end: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(PLAIN.replace(",", delimiter).replace("\n", end).encode(encoding))
    assert is_table(path)
    assert cells(path) == CELLS


def test_quoted_cells_keep_delimiters_quotes_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('id,text\n1,"a, ""b""\nc;d;e"\n\n2,\n', encoding="utf-8")
    assert cells(path) == [{"id": "1", "text": 'a, "b"\nc;d;e'}, {"id": "2", "text": ""}]
    assert [row.line for row in read_table(path)] == [2, 5]


def test_packed_tables_one_column_and_an_index_without_a_name(tmp_path: Path) -> None:
    packed, column, index = (tmp_path / name for name in ("t.csv.gz", "one.csv", "index.csv"))
    packed.write_bytes(gzip.compress(PLAIN.encode()))
    column.write_text("text\nfirst\nsecond\n")
    index.write_text(",text\n0,first\n1,second\n")
    assert cells(packed) == CELLS
    assert cells(column) == [{"text": "first"}, {"text": "second"}]
    assert cells(index)[1] == {"column 1": "1", "text": "second"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a,b\n1,2\n3\n", "line 3: the row has 1 cells, but the header has 2"),
        (b"a,a\n1,2\n", "line 1: two columns are called 'a'"),
        (b'a,b\n1,2\n3,"x"y\n', "line 3: not CSV"),
        (b"a,b\n", "no rows in it below the header"),
        (b"", "it is empty"),
        ("a,b\n1,2\nä,3\n".encode("cp1252"), "line 3: not UTF-8: byte 0xE4, 'ä' in Windows-1252"),
        (b"PK\x03\x04rest", "an archive"),
        (b"%PDF-1.7 rest", "it is a PDF"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        read_table(path)
    assert said in str(error.value)
    assert error.value.next_step


@pytest.mark.parametrize(
    "text",
    [
        '{"id":1,"a":2}\n{"id":1,"a":2}\n',
        "[1,\n2,\n3]",
        "Dear John, Jane,\nthank you.\n",
        "one\ntwo",
    ],
)
def test_json_and_prose_are_no_table(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.txt"
    path.write_text(text)
    assert not is_table(path)
