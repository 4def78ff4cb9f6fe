"""What a file holds: text of every packing and encoding is read, every other kind is named."""

from __future__ import annotations

import gzip
import io
import time
import zipfile
from pathlib import Path

import pytest

from offapi.errors import DataError
from offapi.files import contents, jsonl

ROWS = '{"id":"1","document":"Bär GmbH 12.50"}\n{"id":"2","document":"x"}\n'
READ = [{"id": "1", "document": "Bär GmbH 12.50"}, {"id": "2", "document": "x"}]


def zipped(*names: str, mimetype: str = "") -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        if mimetype:
            archive.writestr("mimetype", mimetype)
        for name in names:
            archive.writestr(name, "x")
    return data.getvalue()


KINDS = [
    (b"PAR1xxxx", "Parquet", "duckdb"),
    (b"%PDF-1.7\n%\xe2\xe3", "a PDF", "pdftotext"),
    (zipped("[Content_Types].xml", "word/document.xml"), "Word", "pandoc"),
    (zipped("[Content_Types].xml", "xl/workbook.xml"), "spreadsheet", "CSV"),
    (zipped("ppt/presentation.xml"), "presentation", "text"),
    (zipped(mimetype="application/vnd.oasis.opendocument.text"), "Word", "pandoc"),
    (zipped("train.jsonl"), "an archive", "npack"),
    (b"PK\x03\x04 cut", "an archive", "npack"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1", "old Word", "soffice"),
    (b"{\\rtf1\\ansi", "RTF", "pandoc"),
    (b"\x89PNG\r\n\x1a\n", "an image", "tesseract"),
    (b"\xff\xd8\xff\xe0", "an image", "tesseract"),
    (b"RIFF\0\0\0\0WEBP", "an image", "tesseract"),
    (b"RIFF\0\0\0\0WAVE", "audio", "transcribe"),
    (b"\0\0\0\x18ftypheic", "an image", "tesseract"),
    (b"SQLite format 3\0", "SQLite", "sqlite3 -json"),
    (b"\xff\xff\xff\xff\x98\x02\0\0", "Arrow", "to_json"),
    (b"\x80\x04\x95", "pickle", "json.dumps"),
    (b"7z\xbc\xaf\x27\x1c", "an archive", "npack"),
    (b"\x28\xb5\x2f\xfd", "an archive", "npack"),
    (b"x" * 257 + b"ustar", "an archive", "npack"),
    (b"\xef\xbb\xbf<!DOCTYPE html><p>x", "HTML", "pandoc"),
    (b'<?xml version="1.0"?>', "HTML or XML", "pandoc"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer", "git lfs pull"),
    (b"ab\0\0\1\2\3cdefgh", "a binary file", "JSON Lines"),
    (b"id,text\n1,x\n2,y\n", "a table (CSV)", "offapi init DIR --from FILE"),
    (b"id\ttext\n1\tx\n2\ty\n", "a table (TSV)", "pandas"),
    (b"id;text\n1;x\n2;y\n", "a table (CSV)", "offapi init"),
    (b"Dear Sir,\nplease pay.\n", "plain text", "name their folder"),
]  # fmt: skip


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_text_of_every_encoding_and_packing_is_read(
    tmp_path: Path, encoding: str, pack: type[bytes]
) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(pack(ROWS.encode(encoding)))
    assert [row.value for row in jsonl.read(path)] == READ


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(("data", "name", "step"), KINDS, ids=[kind for _, kind, _ in KINDS])
def test_another_kind_of_file_is_named(
    tmp_path: Path, data: bytes, name: str, step: str, pack: type[bytes]
) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(pack(data))
    if pack is gzip.compress and data.startswith(b"PK"):
        name, step = "an archive", "npack"
    with pytest.raises(DataError) as caught:
        jsonl.read(path)
    assert name in caught.value.what
    assert step in caught.value.next_step
    assert caught.value.where == str(path)


def test_text_of_another_encoding_is_named_with_the_letter_and_how_to_convert(
    tmp_path: Path,
) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(
        b'{"id":"1","document":"x"}\n' + '{"id":"2","document":"café"}'.encode("cp1252")
    )
    with pytest.raises(DataError) as caught:
        jsonl.read(path)
    assert caught.value.where == f"{path}, line 2"
    assert "not UTF-8: byte 0xE9, 'é' in Windows-1252, at byte 26 of the line" in caught.value.what
    assert "iconv -f WINDOWS-1252 -t UTF-8" in caught.value.next_step


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(ROWS.encode(), mtime=0)[:-12], "cut short"),
        (b"\x1f\x8b\x08\x00broken", "cut short"),
        (ROWS.encode("utf-16")[:-1], "not UTF-16 throughout"),
    ],
)
def test_a_file_that_breaks_off_says_so(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said):
        jsonl.read(path)


def test_a_missing_file_says_where_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="No such file") as caught:
        jsonl.read(Path("traces.jsonl"))
    assert caught.value.where == "traces.jsonl"
    assert caught.value.next_step == f"Check the path. It is looked for in {tmp_path}."
    with pytest.raises(DataError) as caught:
        jsonl.read(tmp_path / "traces.jsonl")
    assert caught.value.next_step == "Check the path."


def test_a_small_file_that_unpacks_to_too_much_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "SAFE", 4 << 20)
    path = tmp_path / "d.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" * (64 << 20)))
    begun = time.process_time()
    with pytest.raises(DataError, match=r"more than 200 times its size, 5 MiB so far"):
        contents.read_text(path)
    assert time.process_time() - begun < 1
    path.write_bytes(gzip.compress(ROWS.encode() * 1000, 1))
    assert len(jsonl.read(path)) == 2000
