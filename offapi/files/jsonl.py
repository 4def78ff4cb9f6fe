"""JSON Lines, read strictly: a bad line is an error with file, line, field and next step.

Left out: reading lazily. Rows are small, and a bad last row should be known before the first
is used.
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
    """One line: its object, and its place, for errors."""

    path: Path
    line: int  # 1-based
    value: Mapping[str, Any]

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
            shown = orjson.dumps(value)[:40].decode("utf-8", "replace")
            raise self.error(
                f"{name!r} must be {_KINDS[kind]}, got {shown}.", name, "Fix this row."
            )
        return value

    def error(self, what: str, field: str = "", next_step: str = "") -> DataError:
        """Return a DataError at this line."""
        return DataError.at(what, path=self.path, line=self.line, field=field, next_step=next_step)


def read(path: Path) -> list[JsonRow]:
    """Return all rows of the file; blank lines are skipped.

    Raise DataError for a missing or empty file, and at the first line that is not UTF-8, not JSON,
    or not an object.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError.at(
            f"cannot read it: {error.strerror}.", path=path, next_step="Check the path."
        ) from None
    # Windows editors put a mark before UTF-8.
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    rows = [
        parse(path, i, line, last=i == len(lines))
        for i, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not rows:
        raise DataError.at(
            "there are no rows in it.", path=path, next_step="Write one JSON object on each line."
        )
    return rows


def parse(path: Path, number: int, line: bytes, *, last: bool = False) -> JsonRow:
    """Return the row in a line of `path`. Raise DataError if it is not a JSON object in UTF-8."""
    try:
        line.decode("utf-8")
        value = orjson.loads(line)
    except UnicodeDecodeError as error:
        what = f"not UTF-8 at byte {error.start + 1} of the line."
        raise DataError.at(
            what, path=path, line=number, next_step="Save the file as UTF-8."
        ) from None
    except orjson.JSONDecodeError as error:
        cut = "This last line may have been cut short. " if last else ""
        raise DataError.at(
            f"not JSON: {error.msg} at column {error.colno}.",
            path=path,
            line=number,
            next_step=f"{cut}Write one whole JSON object on each line.",
        ) from None
    if not isinstance(value, dict):
        what = f"a JSON {type(value).__name__}, not an object."
        raise DataError.at(
            what, path=path, line=number, next_step="Write one JSON object on each line."
        )
    return JsonRow(path, number, value)


def unique_ids(rows: Iterable[JsonRow]) -> None:
    """Raise DataError at the first row whose "id" is empty or was used before."""
    seen: dict[str, int] = {}
    for row in rows:
        id = row.required("id", str)
        if not id.strip():
            raise row.error("the id is empty.", "id", "Give every row its own id.")
        if id in seen:
            what = f"id {id!r} was already used in line {seen[id]}."
            raise row.error(what, "id", "Give every row its own id.")
        seen[id] = row.line


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace `path` by `rows`, whole or not at all (`atomic.write_file`)."""
    atomic.write_file(path, b"".join(line(row) for row in rows))


def line(row: Mapping[str, Any]) -> bytes:
    """Write `row` as one JSON line."""
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
