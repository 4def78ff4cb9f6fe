"""A folder of documents: what is read, and what is left out, counted with how to convert it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from offapi.data import documents
from offapi.errors import DataError


class Said:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str = "") -> None:
        self.lines.append(text)

    progress = None


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")


def said(folder: Path) -> list[str]:
    keeper = Said()
    documents.say_left_out(keeper, None, folder, folder, folder / "none")  # type: ignore[arg-type]
    return keeper.lines


def test_what_a_folder_leaves_out_is_counted_and_named(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b.MD", "sub/c.txt", "1.pdf", "sub/2.PDF", "x.docx", "s.png", "t.jpg")
    fill(tmp_path, "p.html", "r.jsonl", "LICENSE", ".hidden.txt", ".git/d.md", ".DS_Store")
    assert [row.id for row in documents.read(tmp_path)] == ["a.txt", "b.MD", "sub/c.txt"]
    (line,) = said(tmp_path)
    counted = "10 files in {} are not read: 2 .pdf, 1 without a suffix, 1 .docx, 1 .html,"
    assert line.startswith(counted.format(tmp_path))
    assert "1 .jpg, 1 .jsonl, 1 .png, 2 hidden." in line
    assert ".pdf: convert it to text: pdftotext -layout FILE" in line
    assert ".jpg, .png: Get its text with OCR" in line
    assert "ocrmypdf" in line


def test_a_folder_of_documents_alone_says_nothing(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b.md", ".DS_Store")
    assert said(tmp_path) == []


@pytest.mark.parametrize("names", [["1.pdf", "2.pdf"], ["x.docx"], [".a.txt"]])
def test_a_folder_with_nothing_to_read_names_what_is_there(
    tmp_path: Path, names: list[str]
) -> None:
    fill(tmp_path, *names)
    with pytest.raises(DataError, match="there are no documents in the folder") as caught:
        documents.read(tmp_path)
    assert ("1 file in" if len(names) == 1 else "2 files in") in caught.value.next_step
    assert (Path(names[0]).suffix if names[0][0] != "." else "hidden") in caught.value.next_step


def test_a_name_that_is_not_utf_8_gives_an_id_that_can_be_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    try:
        (tmp_path / name).write_text("text")
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    rows = documents.read(tmp_path)
    assert [row.id for row in rows] == ["caf\\xe9.txt"]
    documents.write(tmp_path / "d.jsonl", rows)
    assert documents.read(tmp_path / "d.jsonl") == rows
