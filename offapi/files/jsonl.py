"""Rows of JSON, read strictly: a bad row is an error with file, line, field and next step.

Left out: reading lazily. Rows are small, and a bad last row should be known before the first
is used.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import orjson

from offapi.errors import DataError, nearest, place
from offapi.files import atomic, contents, json_text
from offapi.files.capture_file import CaptureFile

T = TypeVar("T")
DEEPEST = 250  # levels that can be written again
NUMBERS = " (a whole number as an id counts as its digits)"
_KINDS: Mapping[type, str] = {str: "a string", dict: "an object", list: "an array"}


@dataclass(frozen=True)
class JsonRow:
    """One row: its object, and its place, for errors."""

    path: Path
    line: int  # 1-based; of an array, the element's number
    value: Mapping[str, Any]
    element: bool = False  # of an array
    nan: bool = False  # the value holds NaN or Infinity

    @property
    def id(self) -> str:
        """The row's id as text: a whole number counts as its digits, so 1 is "1".

        Raise DataError if it is missing, empty or something else.
        """
        id = self.value.get("id")
        if isinstance(id, str) and id and not id.isspace():
            return id
        if isinstance(id, int) and not isinstance(id, bool):
            return str(id)
        if isinstance(id, float) and id.is_integer():
            return str(int(id))
        self.required("id", str)
        raise self.error("the id is empty.", "id", "Give every row its own id.")

    def required(self, name: str, kind: type[T]) -> T:
        """Return the field `name`. Raise DataError if it is missing or not a `kind`."""
        if name not in self.value:
            close = nearest(name, self.value)
            raise self.error(
                f"{name!r} is missing.", name, f'Every row needs "{name}", {_KINDS[kind]}. {close}'
            )
        return self._typed(name, kind)

    def optional(self, name: str, kind: type[T]) -> T | None:
        """Return the field `name`, None if absent or null. Raise DataError if not a `kind`."""
        return None if self.value.get(name) is None else self._typed(name, kind)

    def _typed(self, name: str, kind: type[T]) -> T:
        value = self.value[name]
        if not isinstance(value, kind):
            shown = "NaN" if value != value else orjson.dumps(value)[:40].decode("utf-8", "replace")
            raise self.error(
                f"{name!r} must be {_KINDS[kind]}, got {shown}.", name, "Fix this row."
            )
        if isinstance(value, dict):
            self._check_writable(name, value)
        return value

    def _check_writable(self, name: str, value: object) -> None:
        """Raise DataError where a value cannot be written as it was read."""
        try:
            orjson.dumps([[[[value]]]])  # deeper than any row holds it
        except TypeError:
            what = f"{name!r} is nested too deeply, beyond {DEEPEST} levels."
            raise self.error(what, name, "Fix this row.") from None
        if self.nan and (field := _not_finite(value, name)):
            step = "Write null where there is no value."
            raise self.error("NaN and Infinity are not JSON.", field, step)

    @property
    def where(self) -> str:
        """The row's place, as errors write it."""
        return place(*self._place())

    def error(self, what: str, field: str = "", next_step: str = "") -> DataError:
        """Return a DataError at this row."""
        path, line = self._place()
        return DataError.at(what, path=path, line=line, field=field, next_step=next_step)

    def _place(self) -> tuple[Path | str, int | None]:
        if self.element:
            return f"{self.path}, element {self.line}", None
        return self.path, self.line


def read(path: Path) -> list[JsonRow]:
    """Return all rows of the file: of its lines, of one array, or of objects over several lines.

    The file may be packed with gzip or in UTF-16; blank lines are skipped. Raise DataError for a
    missing or empty file, for one of another kind, and at the first row that is not UTF-8, not
    JSON, or not an object.
    """
    data = contents.read_text(path)
    json_text.refuse_other_text(path, data[: contents.HEAD])
    parts = json_text.split_values(path, data)
    if parts is None:
        lines = data.split(b"\n")
        rows = [
            parse(path, i, line, last=i == len(lines))
            for i, line in enumerate(lines, start=1)
            if line.strip()
        ]
    else:
        rows = [parse(path, i, value, element=parts.array) for i, value in parts.values]
    if not rows:
        raise DataError.at(
            "there are no rows in it.", path=path, next_step="Write one JSON object on each line."
        )
    return rows


def is_lines(path: Path) -> bool:
    """Return whether a file is JSON Lines in plain UTF-8, which can be read in pieces.

    Raise DataError for a file that is not JSON.
    """
    if CaptureFile.find(path) is not None:
        return False
    try:
        with contents.open_text(path) as opened:
            json_text.refuse_other_text(path, opened.head)
            plain = opened.stream is opened.raw
            head = opened.head.removeprefix(contents.BOM).lstrip()
    except (EOFError, zlib.error, OSError) as error:
        raise contents.unreadable(path, error) from None
    if not plain or head[:1] == b"[":
        return False
    return b"\n" not in head or json_text.split_values(path, head[: head.rfind(b"\n")]) is None


def parse(
    path: Path, number: int, line: bytes, *, last: bool = False, element: bool = False
) -> JsonRow:
    """Return the row in a line of `path`. Raise DataError if it is not a JSON object in UTF-8."""
    if len(line) > contents.LARGEST:
        what = f"one row must not exceed {contents.LARGEST >> 20} MiB."
        raise DataError.at(what, path=path, line=number, next_step="Split or remove the row.")
    nan = False
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value, nan = json_text.with_nan(line), True
        if value is None:
            raise _not_json(path, number, line, last) from None
    row = JsonRow(path, number, value, element, nan)
    if not isinstance(value, dict):
        what = f"a JSON {type(value).__name__}, not an object."
        raise row.error(what, next_step="Write one JSON object on each line.")
    return row


def _not_json(path: Path, number: int, line: bytes, last: bool) -> DataError:
    what = json_text.why_not_json(line)
    if what.startswith("not UTF-8"):
        step = contents.save_as_utf_8()
    else:
        cut = "This last line may have been cut short. " if last else ""
        step = f"{cut}Write one whole JSON object on each line."
    return DataError.at(f"{what}.", path=path, line=number, next_step=step)


def _not_finite(value: Any, path: str) -> str:
    """Return the place of the first NaN or Infinity in `value`; "" without one."""
    if isinstance(value, float):
        return "" if isfinite(value) else path
    inside = (_not_finite(child, f"{path}.{name}") for name, child in _children(value))
    return next(filter(None, inside), "")


def _children(value: Any) -> Iterable[tuple[object, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def unique_ids(rows: Iterable[JsonRow]) -> None:
    """Raise DataError at the first row whose id is empty or was used before; 1 and "1" are one."""
    seen: dict[str, JsonRow] = {}
    for row in rows:
        id = row.id
        before = seen.setdefault(id, row)
        if before is not row:
            unit = "element" if row.element else "line"
            alike = "" if type(before.value["id"]) is type(row.value["id"]) else NUMBERS
            what = f"id {id!r} was already used in {unit} {before.line}{alike}."
            raise row.error(what, "id", "Give every row its own id.")


def place_of(path: Path, id: str) -> str:
    """Return the place of the row with that id, for errors; of a folder its path."""
    if path.is_dir():
        return str(path)
    return next(row.where for row in read(path) if row.id == id)


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace `path` by `rows`, whole or not at all (`atomic.write_file`)."""
    atomic.write_file(path, b"".join(line(row) for row in rows))


def line(row: Mapping[str, Any]) -> bytes:
    """Write `row` as one JSON line. Raise DataError where it is nested too deeply."""
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError as error:
        if "Recursion" not in str(error):
            raise
        what = f"row {row.get('id')!r} cannot be written as JSON: {error}."
        raise DataError(what, next_step="Fix or remove this row.") from None
