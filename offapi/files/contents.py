"""What a file holds, by its bytes: text, also packed or in UTF-16, or another kind, which is named.

Every reader of documents, traces, logs and tables opens its files here. Left out: text in other
encodings (it is named, not read), since only its writer knows which one it is.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple, cast

from offapi.errors import DataError
from offapi.files import other_kinds
from offapi.files.capture_file import CaptureFile

LARGEST = 256 << 20  # bytes of one line, or of a file that has to be read as a whole
HEAD = 64 << 10  # bytes that show what a file holds
PIECE = 1 << 20
BOM = codecs.BOM_UTF8
GZIP = b"\x1f\x8b"
SAFE, RATIO = LARGEST, 200  # a file may unpack to SAFE bytes, or to RATIO times its size
CONVERT = "Convert it, for example: iconv -f {} -t UTF-8 FILE > NEW"
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DELIMITERS = ",;\t|"
RECORDS = 20  # of a table, which show its delimiter


class OpenedText(NamedTuple):
    """A file's text in UTF-8, which may begin with a mark, and the file below it, for progress."""

    stream: IO[bytes]
    raw: IO[bytes]
    head: bytes


@contextmanager
def open_text(path: Path) -> Iterator[OpenedText]:
    """Open a text file, also one in gzip or UTF-16. Raise DataError for every other kind of file.

    Raise OSError, EOFError or zlib.error where it cannot be read.
    """
    kept = CaptureFile.find(path)
    if kept is not None:
        with kept.stream() as lines:
            yield OpenedText(lines, lines, lines.peek(HEAD)[:HEAD])
        return
    with path.open("rb", buffering=HEAD) as raw:
        stream = cast(io.BufferedReader, raw)
        if stream.peek(2)[:2] == GZIP:
            stream = cast(io.BufferedReader, gzip.open(stream))  # noqa: SIM115
        with stream:
            head = stream.peek(HEAD)[:HEAD]
            encoding = utf_16_or_32(head)
            if encoding:
                text = io.BytesIO(_converted(path, stream.read(LARGEST + 1), encoding))
                yield OpenedText(text, raw, text.getvalue()[:HEAD])
                return
            kind = other_kinds.other_kind(head, path)
            if kind is not None:
                raise DataError.at(f"it is {kind.name}.", path=path, next_step=kind.step)
            yield OpenedText(stream, raw, head)


def read_text(path: Path) -> bytes:
    """Return a whole file's text in UTF-8, without a mark at its beginning.

    Raise DataError, with the next step, where there is none.
    """
    try:
        with open_text(path) as opened:
            return b"".join(read_pieces(path, opened)).removeprefix(BOM)
    except (EOFError, zlib.error, OSError) as error:
        raise unreadable(path, error) from None


def read_pieces(path: Path, opened: OpenedText) -> Iterator[bytes]:
    """Yield the rest of a file in pieces. Raise DataError where a small one unpacks to too much."""
    while piece := opened.stream.read(PIECE):
        yield piece
        size = opened.stream.tell() if opened.stream is not opened.raw else 0
        if size > SAFE and size > RATIO * opened.raw.tell():
            what = f"it unpacks to more than {RATIO} times its size, {size >> 20:,} MiB so far."
            step = "Check what it holds, and name the unpacked file if it is right."
            raise DataError.at(what, path=path, next_step=step)


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the error for a file that cannot be read, or not to its end."""
    if isinstance(error, OSError) and error.strerror:
        relative = "" if path.is_absolute() else f" It is looked for in {Path.cwd()}."
        step = f"Check the path.{relative}"
        return DataError.at(f"cannot read it: {error.strerror}.", path=path, next_step=step)
    step = "It may have been cut short: copy it again, or unpack what is left of it."
    return DataError.at(f"the file cannot be read: {error}.", path=path, next_step=step)


def not_utf_8(data: bytes, start: int) -> str:
    """Write what stands at the byte `start`, which is not UTF-8."""
    byte = data[start : start + 1]
    letter = byte.decode("cp1252", "ignore")
    meant = f", {letter!r} in Windows-1252" if letter.isprintable() and letter else ""
    return f"byte 0x{byte.hex().upper()}{meant}"


def save_as_utf_8() -> str:
    """Return the next step for text in another encoding."""
    return f"Save the file as UTF-8. {CONVERT.format('WINDOWS-1252')} (or the encoding it has)."


def utf_16_or_32(head: bytes) -> str:
    """Return the encoding of a text with two or four bytes a letter, marked or not; else ""."""
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return encoding
    sample = head[:64]
    if len(sample) >= 4:
        even, odd = set(sample[::2]), set(sample[1::2])
        if odd == {0} and 0 not in even:
            return "utf-16-le"
        if even == {0} and 0 not in odd:
            return "utf-16-be"
    return ""


def table_delimiter(head: bytes) -> str:
    """Return what parts the cells of a table (CSV, TSV); "" where the text is not a table.

    Every record of a table has the same number of cells, two or more.
    """
    text = head.removeprefix(BOM).decode("utf-8", "replace")
    if text.lstrip()[:1] in ("{", "["):
        return ""
    counts = {each: _cells(text, each, cut=len(head) >= HEAD) for each in DELIMITERS}
    best = max(counts, key=lambda each: counts[each])
    return best if counts[best] > 1 else ""


def _cells(text: str, delimiter: str, *, cut: bool) -> int:
    """Return the number of cells that all the first records have; 0 where it differs."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        records = list(filter(None, islice(reader, RECORDS)))
    except csv.Error:
        return 0
    if cut and len(records) < RECORDS:
        records = records[:-1]
    counts = set(map(len, records))
    return counts.pop() if len(counts) == 1 and len(records) > 1 else 0


def _converted(path: Path, data: bytes, encoding: str) -> bytes:
    name = encoding.upper()
    if len(data) > LARGEST:
        what = f"a file in {name} must not exceed {LARGEST >> 20} MiB."
        raise DataError.at(what, path=path, next_step=f"{CONVERT.format(name)}.")
    try:
        return data.decode(encoding).encode()
    except UnicodeError:
        what = f"it begins as {name} does, but is not {name} throughout."
        raise DataError.at(what, path=path, next_step="Save the file as UTF-8.") from None
