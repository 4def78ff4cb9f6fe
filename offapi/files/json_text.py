"""JSON in a file: a value in each line, one array, or objects over several lines.

Left out: repairing. A value that is not JSON stays as it is, and `why_not_json` says what is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson

from offapi.errors import DataError
from offapi.files import contents

KEPT = "surrogateescape"  # bytes that are not UTF-8 stay what they are
SPACE = re.compile(r"[ \t\r\n]*")
NEXT = re.compile(r"\n(?=\{)")  # where the next object begins, after one that is not JSON
TABLE = (
    "`offapi init DIR --from FILE` makes a task from it. Or write it as JSON Lines, for example"
    " with pandas: pd.read_csv('FILE').to_json('NEW.jsonl', orient='records', lines=True)"
)
PLAIN = (
    "Write one JSON object on each line. Documents may also be .txt and .md files: name their"
    " folder."
)
NO_ARRAY = "It may have been cut short; export it again, or write it as JSON Lines."
PYTHON = ("None", "True", "False", "NaN", "Infinity", "undefined", "'")


class Values(NamedTuple):
    """The values of a text: of an array by number, of other objects by the line they begin in."""

    array: bool
    values: Sequence[tuple[int, bytes]]


def refuse_other_text(path: Path, head: bytes) -> None:
    """Raise DataError where a file, by its first bytes, is a table or plain text, not JSON."""
    text = head.removeprefix(contents.BOM)
    delimiter = contents.table_delimiter(text)
    if delimiter:
        kind = "TSV" if delimiter == "\t" else "CSV"
        raise DataError.at(f"it is a table ({kind}), not JSON.", path=path, next_step=TABLE)
    lines = text.split(b"\n")
    if text.strip() and not any(line.lstrip()[:1] in (b"{", b"[") for line in lines):
        raise DataError.at("it is plain text, not JSON.", path=path, next_step=PLAIN)


def first_line(data: bytes) -> bytes:
    """Return the first line that is not blank, without the space around it."""
    return next((line for line in _lines(data) if line), b"")


def split_values(path: Path, data: bytes) -> Values | None:
    """Return the values of a text that is an array, or objects over several lines.

    None where each line is a value of its own. Raise DataError for an array that is not whole.
    """
    line = first_line(data)
    if line[:1] == b"[":
        return Values(True, list(enumerate(_elements(path, data), start=1)))
    if line[:1] != b"{" or is_json(line):
        return None
    text = data.decode("utf-8", KEPT)
    end = _end(text, _past_space(text, 0))
    if line != b"{" and (end is None or "\n" not in text[:end].strip()):
        return None
    return Values(False, list(_objects(text)))


def is_json(data: bytes) -> bool:
    """Return whether `data` is one JSON value."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def loads(data: bytes) -> Any:
    """Return a JSON value; NaN and Infinity are let through. Raise ValueError if it is not JSON."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        value = with_nan(data)
        if value is None:
            raise
        return value


def with_nan(data: bytes) -> Any:
    """Return the value of JSON that holds NaN or Infinity, which Python and pandas write.

    None where that is not what is wrong with it.
    """
    found: list[float] = []

    def constant(name: str) -> float:
        found.append(float(name))
        return found[-1]

    try:
        value = json.loads(data, parse_constant=constant)
        orjson.dumps(value)
    except (ValueError, RecursionError, TypeError):
        return None
    return value if found else None


def why_not_json(data: bytes) -> str:
    """Return what is wrong with a value, and where: its line in the value if it has several."""
    try:
        data.decode()
        orjson.loads(data)
    except UnicodeDecodeError as error:
        what, at = f"not UTF-8: {contents.not_utf_8(data, error.start)}", error.start
        return f"{what}, at byte {at + 1} of the line"
    except orjson.JSONDecodeError as error:
        line = f" of its line {error.lineno}" if error.lineno > 1 else ""
        found = error.doc[error.pos : error.pos + 9]
        near = next((f" ({word})" for word in PYTHON if found.startswith(word)), "")
        return f"not JSON: {error.msg} at column {error.colno}{line}{near}"
    except RecursionError:
        return "not JSON that can be read: nested too deeply"
    return "not JSON"


def _lines(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        yield data[start:end].strip()
        start = end + 1


def _elements(path: Path, data: bytes) -> list[bytes]:
    try:
        return [bytes(raw) for raw in msgspec.json.decode(data, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, RecursionError):
        pass
    text = data.decode("utf-8", KEPT)
    elements: list[bytes] = []
    at, decode = text.index("[") + 1, json.JSONDecoder().raw_decode
    try:
        at = _past_space(text, at)
        while text[at : at + 1] != "]":
            _, end = decode(text, at)
            elements.append(text[at:end].encode("utf-8", KEPT))
            at = _past_space(text, end)
            if text[at : at + 1] not in ("]", ","):
                raise json.JSONDecodeError("',' or ']' is missing", text, at)
            at = _past_space(text, at + 1) if text[at] == "," else at
        if _past_space(text, at + 1) < len(text):
            raise json.JSONDecodeError("there is more after the array", text, at + 1)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else None
        what = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise DataError.at(
            f"the file is not one whole JSON array: {what}.",
            path=path,
            line=line,
            next_step=NO_ARRAY,
        ) from None
    return elements


def _objects(text: str) -> Iterator[tuple[int, bytes]]:
    """Yield each object with the line it begins in; what is not JSON ends where the next begins."""
    at, line, before = _past_space(text, 0), 1, 0
    while at < len(text):
        line, before = line + text.count("\n", before, at), at
        end = _end(text, at)
        if end is None:
            following = NEXT.search(text, at)
            end = following.start() if following else len(text)
        yield line, text[at:end].encode("utf-8", KEPT)
        at = _past_space(text, end)


def _end(text: str, at: int) -> int | None:
    """Return where the JSON value that begins at `at` ends; None if it is not one."""
    decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode
    try:
        return decode(text, at)[1]
    except (ValueError, RecursionError):
        return None


def _past_space(text: str, at: int) -> int:
    match = SPACE.match(text, at)
    return match.end() if match else at
