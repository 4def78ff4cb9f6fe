"""Kinds of files without text to read: what each is, and how to get text or rows from it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple


class OtherKind(NamedTuple):
    """What a file is instead of text, and what to do."""

    name: str
    step: str


PDF = OtherKind(
    "a PDF",
    "convert it to text: pdftotext -layout FILE (a scan has no text layer: ocrmypdf first).",
)
DOCX = OtherKind("a Word document", "Convert it to text: pandoc FILE -t plain -o FILE.txt")
OLD = OtherKind(
    "an old Word, Excel or Outlook file",
    "Convert it: soffice --convert-to docx (or csv) FILE; then as you would that kind.",
)
SHEET = OtherKind("a spreadsheet", "Save it as CSV; `offapi init DIR --from table.csv` reads that.")
IMAGE = OtherKind("an image", "Get its text with OCR: tesseract FILE NAME writes NAME.txt.")
SOUND = OtherKind("audio or video", "offapi reads text only: transcribe it first.")
HTML = OtherKind("HTML or XML", "Convert it to text: pandoc FILE -t plain -o FILE.txt")
RICH = OtherKind("a rich text file (RTF)", "Convert it to text: pandoc FILE -t plain -o FILE.txt")
MAIL = OtherKind("an e-mail", "Save its text as .txt.")
SLIDES = OtherKind("a presentation", "Export its text, or convert it to PDF and that to text.")
ARCHIVE = OtherKind("an archive", "Unpack it, and name the file or folder inside.")
PARQUET = OtherKind(
    "Parquet, which is not read",
    "Convert it to JSON Lines: duckdb -c \"COPY (FROM 'FILE') TO 'x.jsonl'\"",
)
ARROW = OtherKind(
    "an Arrow or Feather table",
    "Convert it to JSON Lines; for Hugging Face datasets: dataset.to_json('x.jsonl').",
)
DATABASE = OtherKind(
    "an SQLite database",
    "Export the table as JSON: sqlite3 -json FILE 'SELECT * FROM ...' > x.json",
)
AVRO = OtherKind("an Avro or ORC file", "Convert it to JSON Lines.")
PICKLE = OtherKind("a Python pickle", "Write it as JSON Lines with json.dumps, one row a line.")
POINTER = OtherKind("a Git LFS pointer, not the file itself", "Fetch the file: git lfs pull")
ROWS = OtherKind("rows of JSON", "Name such a file itself, not its folder.")
TABLE = OtherKind("a table", "`offapi init DIR --from FILE` reads it.")
BINARY = OtherKind("a binary file", "offapi reads text: JSON Lines, or .txt and .md in a folder.")

BEGINNINGS: tuple[tuple[bytes, OtherKind], ...] = (
    (b"%PDF", PDF),
    (b"PAR1", PARQUET),
    (b"\xd0\xcf\x11\xe0", OLD),
    (b"{\\rtf", RICH),
    (b"\x89PNG", IMAGE),
    (b"\xff\xd8\xff", IMAGE),
    (b"GIF8", IMAGE),
    (b"II*\0", IMAGE),
    (b"MM\0*", IMAGE),
    (b"SQLite format 3\0", DATABASE),
    (b"ARROW1", ARROW),
    (b"FEA1", ARROW),
    (b"\xff\xff\xff\xff", ARROW),
    (b"Obj\x01", AVRO),
    (b"ORC", AVRO),
    (b"BZh", ARCHIVE),
    (b"\xfd7zXZ", ARCHIVE),
    (b"\x28\xb5\x2f\xfd", ARCHIVE),
    (b"7z\xbc\xaf", ARCHIVE),
    (b"Rar!", ARCHIVE),
    (b"\x80\x02", PICKLE),
    (b"\x80\x03", PICKLE),
    (b"\x80\x04", PICKLE),
    (b"\x80\x05", PICKLE),
    (b"ID3", SOUND),
    (b"OggS", SOUND),
    (b"fLaC", SOUND),
    (b"\x1a\x45\xdf\xa3", SOUND),
    (b"version https://git-lfs", POINTER),
)
MARKUP = (b"<!doctype html", b"<html", b"<?xml")
# What a folder of documents leaves out, by suffix.
BY_SUFFIX = {
    ".pdf": PDF,
    ".docx": DOCX,
    ".odt": DOCX,
    ".doc": OLD,
    ".msg": OLD,
    ".xls": OLD,
    ".xlsx": SHEET,
    ".ods": SHEET,
    ".rtf": RICH,
    ".html": HTML,
    ".htm": HTML,
    ".xml": HTML,
    ".eml": MAIL,
    ".pptx": SLIDES,
    ".png": IMAGE,
    ".jpg": IMAGE,
    ".jpeg": IMAGE,
    ".tif": IMAGE,
    ".tiff": IMAGE,
    ".gif": IMAGE,
    ".webp": IMAGE,
    ".heic": IMAGE,
    ".bmp": IMAGE,
    ".zip": ARCHIVE,
    ".gz": ARCHIVE,
    ".parquet": PARQUET,
    ".json": ROWS,
    ".jsonl": ROWS,
    ".ndjson": ROWS,
    ".csv": TABLE,
    ".tsv": TABLE,
}
PARTS = {"word/": DOCX, "xl/": SHEET, "ppt/": SLIDES}  # of Office's zip files
MIMETYPES = {b"text": DOCX, b"spreadsheet": SHEET, b"presentation": SLIDES}  # of OpenDocument


def other_kind(head: bytes, path: Path) -> OtherKind | None:
    """Return what the file at `path` is by its first bytes; None where it may be text."""
    if head.startswith(b"PK\x03\x04"):
        return _zipped(path)
    for beginning, kind in BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if head[:4] == b"RIFF":
        return IMAGE if head[8:12] == b"WEBP" else SOUND
    if head[4:8] == b"ftyp":
        return IMAGE if head[8:11] in (b"hei", b"mif", b"avi") else SOUND
    if head[257:262] == b"ustar":
        return ARCHIVE
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower().startswith(MARKUP):
        return HTML
    return BINARY if b"\0" in head[:1024] else None


def _zipped(path: Path) -> OtherKind:
    """Return what a zip file is, by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            mimetype = archive.read("mimetype")[:100] if "mimetype" in names else b""
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError):
        return ARCHIVE
    inside = "\n".join(("", *names))
    if mimetype:
        found = (kind for word, kind in MIMETYPES.items() if word in mimetype)
    else:
        found = (kind for part, kind in PARTS.items() if f"\n{part}" in inside)
    return next(found, ARCHIVE)
