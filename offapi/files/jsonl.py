"""JSON Lines, strictly: every bad line is an error with file, line, field and next step.

Left out: reading lazily. Rows are small, and a bad last row should be known before the
first is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from offapi.errors import DataError, nearest
from offapi.files import atomic

T = TypeVar("T")
_KINDS: Mapping[type, str] = {str: "a string", dict: "an object", list: "an array"}


@dataclass(frozen=True)
class JsonRow:
    """One line: its object, and where it stands, for errors."""

    path: Path
    line: int  # 1-based
    value: Mapping[str, Any]

    def required(self, name: str, kind: type[T]) -> T:
        """Field `name`, which must be there and be a str, dict or list; DataError otherwise."""
        if name not in self.value:
            close = nearest(name, self.value)
            raise self.error(
                f"{name!r} is missing.", name, f'Every row needs "{name}", {_KINDS[kind]}. {close}'
            )
        return self._typed(name, kind)

    def optional(self, name: str, kind: type[T]) -> T | None:
        """Field `name`, or None where it is absent or null; DataError in a wrong type."""
        return None if self.value.get(name) is None else self._typed(name, kind)

    def _typed(self, name: str, kind: type[T]) -> T:
        found = self.value[name]
        if not isinstance(found, kind):
            shown = orjson.dumps(found)[:40].decode("utf-8", "replace")
            raise self.error(
                f"{name!r} must be {_KINDS[kind]}, got {shown}.", name, "Correct this row."
            )
        return found

    def error(self, what: str, field: str = "", next_step: str = "") -> DataError:
        """A DataError at this line."""
        return DataError.at(what, path=self.path, line=self.line, field=field, next_step=next_step)


def read(path: Path) -> list[JsonRow]:
    """All rows of the file; lines of nothing but white space are passed over.

    DataError for a missing or empty file, and at the first line that is not UTF-8, not
    JSON, or not an object.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError.at(
            f"cannot read it: {error.strerror}.", path=path, next_step="Check the path."
        ) from None
    lines = data.removeprefix(b"\xef\xbb\xbf").split(
        b"\n"
    )  # Windows editors put a mark before UTF-8
    rows = [
        parse(path, i, line, last=i == len(lines))
        for i, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not rows:
        raise DataError.at(
            "there are no rows in it.", path=path, next_step="Give it one JSON object a line."
        )
    return rows


def parse(path: Path, number: int, line: bytes, *, last: bool = False) -> JsonRow:
    """The row in a line of `path`; DataError when it is not UTF-8, not JSON, or not an object."""
    try:
        line.decode("utf-8")
        value = orjson.loads(line)
    except UnicodeDecodeError as error:
        what = f"not UTF-8 at byte {error.start + 1} of the line."
        raise DataError.at(
            what, path=path, line=number, next_step="Save the file as UTF-8."
        ) from None
    except orjson.JSONDecodeError as error:
        cut = "It is the last line and may have been cut short; " if last else ""
        raise DataError.at(
            f"not JSON: {error.msg} at column {error.colno}.",
            path=path,
            line=number,
            next_step=f"{cut}write one whole JSON object on each line.",
        ) from None
    if not isinstance(value, dict):
        what = f"a JSON {type(value).__name__}, not an object."
        raise DataError.at(
            what, path=path, line=number, next_step="Write one JSON object on each line."
        )
    return JsonRow(path, number, value)


def unique_ids(rows: Iterable[JsonRow]) -> None:
    """DataError at the first row whose "id" is empty or was used before."""
    seen: dict[str, int] = {}
    for row in rows:
        id = row.required("id", str)
        if not id.strip():
            raise row.error("the id is empty.", "id", "Give every row an id of its own.")
        if id in seen:
            what = f"id {id!r} was already used in line {seen[id]}."
            raise row.error(what, "id", "Give every row an id of its own.")
        seen[id] = row.line


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace `path` by `rows`, whole or not at all (`atomic.write_file`)."""
    atomic.write_file(path, b"".join(line(row) for row in rows))


def line(row: Mapping[str, Any]) -> bytes:
    """`row` as one JSON line."""
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
