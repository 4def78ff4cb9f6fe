"""The files of an import as records: lines of JSON Lines, elements of an array, a single object.

They may be gzipped. The content decides what a file is, not its name. A record stays bytes here, so
that reading is cheap and everything else can be done in other processes. Left out: arrays beyond
LARGEST, which are held in memory as a whole.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from offapi.errors import DataError
from offapi.files.hashing import sha256_file

SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
LARGEST = 256 << 20  # bytes of a file that is one array or one object
JOB = 1 << 20  # bytes of records in one job
BOM = b"\xef\xbb\xbf"


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


def find_files(paths: Sequence[Path], *, but: Path) -> list[RecordFile]:
    """Return the named files and those in the named folders, in order.

    `but`: the output, which is left out.
    """
    files: list[RecordFile] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file for file in path.rglob("*") if file.name.endswith(SUFFIXES) and file.is_file()
            )
            files += [
                _file(file, file.relative_to(path).as_posix())
                for file in inside
                if not _same(file, but)
            ]
        else:
            files.append(_file(path, path.name))
    if not files:
        step = f"Name files, or a folder with files that end with {', '.join(SUFFIXES)}."
        raise DataError.at("there is nothing to import.", path=paths[0], next_step=step)
    return files


def _file(path: Path, name: str) -> RecordFile:
    try:
        with path.open("rb"):
            # On Linux a name can be any bytes.
            written = os.fsencode(name).decode("utf-8", "backslashreplace")
            return RecordFile(path, written, path.stat().st_size)
    except OSError as error:
        raise DataError.at(
            f"cannot read the file: {error.strerror}.", path=path, next_step="Check the path."
        ) from None


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
            step = "It may have been cut short: copy it again, or unpack what is left of it."
            raise DataError.at(
                f"the file cannot be read: {error}.", path=file.path, next_step=step
            ) from None
        before += file.size


Piece = tuple[int, tuple[bytes, ...], dict[str, int], int]


def _pieces(file: RecordFile, at: int, count: int) -> Iterator[Piece]:
    with file.path.open("rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        if magic == b"PAR1":
            step = (
                "Export JSON Lines instead, or convert it (duckdb: COPY (FROM 'FILE') TO"
                " 'x.jsonl')."
            )
            raise DataError.at("Parquet files are not supported.", path=file.path, next_step=step)
        stream: IO[bytes] = gzip.open(raw) if magic[:2] == b"\x1f\x8b" else raw  # type: ignore[assignment]  # noqa: SIM115
        with stream:
            yield from (
                _lines(file, stream, raw, at, count)
                if _is_lines(stream)
                else _whole(file, stream, raw, count)
            )


def _is_lines(stream: IO[bytes]) -> bool:
    """Return whether each line is a record; else the file is an array or one object."""
    head, whole = b"", b""
    while not head and (line := stream.readline(LARGEST)):
        head = line.removeprefix(BOM).strip()
    stream.seek(0)
    if head[:1] == b"{" and not _is_json(head):
        whole = stream.read(LARGEST).removeprefix(BOM)
        stream.seek(0)
    return head[:1] != b"[" and not (whole and _is_json(whole))


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _lines(
    file: RecordFile, stream: IO[bytes], raw: IO[bytes], at: int, count: int
) -> Iterator[Piece]:
    stream.seek(at)
    left = b""
    while data := stream.read(JOB):
        lines = (left + data).split(b"\n")
        left = lines.pop()
        if lines:
            at += sum(map(len, lines)) + len(lines)
            yield (
                count + 1,
                _unmarked(lines, count),
                {"at": at, "records": count + len(lines)},
                raw.tell(),
            )
            count += len(lines)
        if len(left) > LARGEST:
            raise _too_large(file, "one line")
    if left:
        yield (
            count + 1,
            _unmarked([left], count),
            {"at": at + len(left), "records": count + 1},
            raw.tell(),
        )


def _unmarked(lines: list[bytes], count: int) -> tuple[bytes, ...]:
    if count == 0:
        lines[0] = lines[0].removeprefix(BOM)  # Windows editors write a mark before UTF-8
    return tuple(lines)


def _whole(file: RecordFile, stream: IO[bytes], raw: IO[bytes], count: int) -> Iterator[Piece]:
    """Yield the elements of an array, or the one object in the file."""
    data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise _too_large(file, "one JSON value")
    records = _elements(file, data.removeprefix(BOM))
    size = raw.tell()
    while count < len(records):
        taken, length = 0, 0
        while count + taken < len(records) and (not taken or length < JOB):
            length += len(records[count + taken])
            taken += 1
        piece = tuple(map(bytes, records[count : count + taken]))
        yield (
            count + 1,
            piece,
            {"at": 0, "records": count + taken},
            size * (count + taken) // len(records),
        )
        count += taken


def _elements(file: RecordFile, data: bytes) -> Sequence[msgspec.Raw | bytes]:
    if data.lstrip()[:1] != b"[":
        return [data]
    try:
        return msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        step = "It may have been cut short; export it again, or write it as JSON Lines."
        raise DataError.at(
            f"the file is not one whole JSON array: {error}.", path=file.path, next_step=step
        ) from None


def _too_large(file: RecordFile, what: str) -> DataError:
    step = (
        "Write it as JSON Lines, one object a line (jq -c '.[]' FILE): such a file can have any"
        " size."
    )
    return DataError.at(
        f"{what} must not exceed {LARGEST >> 20} MiB.", path=file.path, next_step=step
    )


def total_size(files: Sequence[RecordFile]) -> int:
    """Return the bytes on disk of all files."""
    return sum(file.size for file in files)


def is_output(path: Path, files: Sequence[RecordFile]) -> bool:
    """Return whether `path` is one of the files."""
    return os.path.exists(path) and any(_same(file.path, path) for file in files)
