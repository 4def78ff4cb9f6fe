"""The files of an import as records: lines, elements of an array, objects over several lines.

They may be gzipped or in UTF-16. The content decides what a file is, not its name. A record stays
bytes here, so that reading is cheap and everything else can be done in other processes. Left out:
arrays beyond `contents.LARGEST`, which are held in memory as a whole.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from offapi.errors import DataError
from offapi.files import contents, json_text
from offapi.files.contents import OpenedText
from offapi.files.folder import list_folder
from offapi.files.hashing import sha256_file
from offapi.progress import say_nothing

SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
JOB = 1 << 20  # bytes of records in one job


@dataclass(frozen=True)
class RecordFile:
    """A file of records. `name` is the file name that its traces state."""

    path: Path
    name: str
    size: int  # bytes on disk

    @property
    def stem(self) -> str:
        """`name` without the suffix of a JSON file."""
        for suffix in sorted(SUFFIXES, key=len, reverse=True):
            if self.name.endswith(suffix):
                return self.name.removesuffix(suffix)
        return self.name


class ImportJob(NamedTuple):
    """Some records of a file.

    `first`: the number of the first of them; `end`: where the next job begins.
    """

    file: RecordFile
    first: int  # 1-based; of lines, or of an array's elements
    records: tuple[bytes, ...]
    end: Mapping[str, int]
    read: int  # bytes on disk up to here, of all files


def find_files(
    paths: Sequence[Path], *, but: Path, say: Callable[[str], None] = say_nothing
) -> list[RecordFile]:
    """Return the named files and those in the named folders, in order.

    `but`: the output, which is left out. `say` gets a sentence about others in the folders. Raise
    DataError for a file that is not JSON.
    """
    files: list[RecordFile] = []
    others = ""
    for path in paths:
        if path.is_dir():
            folder = list_folder(path, SUFFIXES)
            others = folder.left_out()
            if others and folder.files:
                say(others)
            inside = [(name, file) for name, file in folder.files if not _same(file, but)]
            files += [_file(file, name) for name, file in inside]
        else:
            files.append(_file(path, path.name))
    if not files:
        step = f"Name files, or a folder with files that end with {', '.join(SUFFIXES)}."
        step = f"{others} {step}".lstrip()
        raise DataError.at("there is nothing to import.", path=paths[0], next_step=step)
    return files


def _file(path: Path, name: str) -> RecordFile:
    try:
        with contents.open_text(path) as opened:
            json_text.refuse_other_text(path, opened.head)
            # On Linux a name can be any bytes.
            written = os.fsencode(name).decode("utf-8", "backslashreplace")
            return RecordFile(path, written, path.stat().st_size)
    except (EOFError, zlib.error, OSError) as error:
        raise contents.unreadable(path, error) from None


def _same(path: Path, other: Path) -> bool:
    return other.exists() and path.samefile(other)


def file_digests(files: Sequence[RecordFile]) -> list[list[Any]]:
    """Return name, size and hash of the files, to recognise them later."""
    return [[file.name, file.size, sha256_file(file.path)] for file in files]


def read_jobs(files: Sequence[RecordFile], start: Mapping[str, int]) -> Iterator[ImportJob]:
    """Yield the records from `start` on (`file`, `at` in bytes, `records` before it).

    Raise DataError for what cannot be read.
    """
    before = sum(file.size for file in files[: start["file"]])
    for number in range(start["file"], len(files)):
        file = files[number]
        at, count = (start["at"], start["records"]) if number == start["file"] else (0, 0)
        try:
            for first, records, end, read in _pieces(file, at, count):
                yield ImportJob(file, first, records, {"file": number, **end}, before + read)
        except (EOFError, zlib.error, OSError) as error:
            raise contents.unreadable(file.path, error) from None
        before += file.size


Piece = tuple[int, tuple[bytes, ...], dict[str, int], int]


def _pieces(file: RecordFile, at: int, count: int) -> Iterator[Piece]:
    with contents.open_text(file.path) as opened:
        json_text.refuse_other_text(file.path, opened.head)
        values = _values(file, opened)
        if values is None:
            yield from _lines(file, opened, at, count)
        else:
            yield from _parts(values, opened.raw.tell(), count)


def _values(file: RecordFile, opened: OpenedText) -> Sequence[bytes] | None:
    """Return the records of a file that has to be read as a whole; None where each is a line."""
    stream = opened.stream
    head = opened.head.removeprefix(contents.BOM).lstrip()
    if head[:1] == b"{" and b"\n" not in head:  # a line longer than the head
        head = stream.readline(contents.LARGEST).removeprefix(contents.BOM).strip()
        stream.seek(0)
    head = json_text.first_line(head)
    if head[:1] != b"[" and (head[:1] != b"{" or json_text.is_json(head)):
        return None
    data = stream.read(contents.LARGEST + 1).removeprefix(contents.BOM)
    stream.seek(0)
    if len(data) > contents.LARGEST:
        if head[:1] == b"[":
            raise _too_large(file, "one JSON value")
        return None
    parts = json_text.split_values(file.path, data)
    return None if parts is None else [value for _, value in parts.values]


def _lines(file: RecordFile, opened: OpenedText, at: int, count: int) -> Iterator[Piece]:
    opened.stream.seek(at)
    left: list[bytes] = []  # the beginning of a line, in pieces
    size = 0
    for data in contents.read_pieces(file.path, opened):
        lines = data.split(b"\n")
        size += len(lines[0])
        if len(lines) > 1:
            lines[0] = b"".join((*left, lines[0]))
            left, size = [], len(lines[-1])
        left.append(lines.pop())
        if size > contents.LARGEST:
            raise _too_large(file, "one line")
        if lines:
            at += sum(map(len, lines)) + len(lines)
            end = {"at": at, "records": count + len(lines)}
            yield count + 1, _unmarked(lines, count), end, opened.raw.tell()
            count += len(lines)
    last = b"".join(left)
    if last:
        end = {"at": at + len(last), "records": count + 1}
        yield count + 1, _unmarked([last], count), end, opened.raw.tell()


def _unmarked(lines: list[bytes], count: int) -> tuple[bytes, ...]:
    if count == 0:
        lines[0] = lines[0].removeprefix(contents.BOM)  # which Windows editors write
    return tuple(lines)


def _parts(records: Sequence[bytes], size: int, count: int) -> Iterator[Piece]:
    """Yield records that are in memory, in jobs."""
    while count < len(records):
        taken, length = 0, 0
        while count + taken < len(records) and (not taken or length < JOB):
            length += len(records[count + taken])
            taken += 1
        piece = tuple(records[count : count + taken])
        end = {"at": 0, "records": count + taken}
        yield count + 1, piece, end, size * (count + taken) // len(records)
        count += taken


def _too_large(file: RecordFile, what: str) -> DataError:
    step = (
        "Write it as JSON Lines, one object a line (jq -c '.[]' FILE): such a file can have any"
        " size."
    )
    return DataError.at(
        f"{what} must not exceed {contents.LARGEST >> 20} MiB.", path=file.path, next_step=step
    )


def total_size(files: Sequence[RecordFile]) -> int:
    """Return the bytes on disk of all files."""
    return sum(file.size for file in files)


def is_output(path: Path, files: Sequence[RecordFile]) -> bool:
    """Return whether `path` is one of the files."""
    return os.path.exists(path) and any(_same(file.path, path) for file in files)
