"""A multipart body, written to disk as it comes: one file, and a few short fields.

Left out: the body's size and speed, which `offapi.serve.access` bounds.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from offapi.serve.errors import ApiError, wrong

FIELD_BYTES, FIELDS, NAME_CHARACTERS = 1 << 10, 16, 200


@dataclass(frozen=True)
class Upload:
    """What a body held: the file is at the path it was written to."""

    filename: str
    fields: Mapping[str, str]


@dataclass
class _Part:
    name: str = ""
    filename: str | None = None
    value: bytearray = field(default_factory=bytearray)


async def receive_file(content_type: str, body: AsyncIterator[bytes], path: Path) -> Upload:
    """Write the file `file` of a body to `path` (mode 0600).

    Raise ApiError for a body that is not multipart, or has no file or more than one.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise ApiError(400, "The Content-Type has no boundary.")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        parts = _Parts(file)
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        try:
            async for chunk in body:
                parser.write(chunk)
            parser.finalize()
        except FormParserError:
            raise ApiError(400, "The body is not valid multipart/form-data.") from None
        file.flush()
        os.fsync(file.fileno())
    if not parts.ended or parts.filename is None:
        raise wrong("file", "The body has no 'file'.", "missing_required_parameter")
    return Upload(plain_name(parts.filename), parts.fields)


def plain_name(given: str) -> str:
    """Return a client's file name without folders and without what a terminal would obey."""
    last = given.replace("\\", "/").rpartition("/")[2]
    kept = "".join(char for char in last if char.isprintable())
    return kept[:NAME_CHARACTERS] or "upload"


class _Parts:
    """What the parser calls, part after part."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.ended = file, False
        self.filename: str | None = None
        self.fields: dict[str, str] = {}
        self._part = _Part()
        self._header = self._header_value = b""

    def callbacks(self) -> Mapping[str, object]:
        return {
            "on_part_begin": self.begin_part,
            "on_header_field": self.add_header,
            "on_header_value": self.add_header_value,
            "on_header_end": self.end_header,
            "on_part_data": self.add_data,
            "on_part_end": self.end_part,
            "on_end": self.end,
        }

    def begin_part(self) -> None:
        self._part = _Part()

    def add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def end_header(self) -> None:
        header, value = self._header.lower(), self._header_value
        self._header = self._header_value = b""
        if header != b"content-disposition":
            return
        _, options = parse_options_header(value)
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            if self._part.name != "file" or self.filename is not None:
                raise wrong("file", "The body must have one file, called 'file'.")
            self._part.filename = self.filename = options[b"filename"].decode("utf-8", "replace")

    def add_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.filename is not None:
            self.file.write(data[start:end])
            return
        self._part.value += data[start:end]
        if len(self._part.value) > FIELD_BYTES or len(self.fields) >= FIELDS:
            raise ApiError(400, "The body's fields are too long or too many.")

    def end_part(self) -> None:
        if self._part.filename is None:
            self.fields[self._part.name] = self._part.value.decode("utf-8", "replace")

    def end(self) -> None:
        self.ended = True
