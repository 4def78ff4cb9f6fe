"""Metadata and tensors of a GGUF file; every length is checked against the file before it is used.

The `gguf` package dequantises, but its reader is not used: a file of 100 bytes that claims an array
of 2^40 items takes all memory, and reading 100,000 strings takes it seconds. Left out: GGUF version
1, big-endian files, nested arrays and types of blocks that `gguf` cannot dequantise.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offapi.errors import ModelError
from offapi.text.display import plural

VERSIONS = (2, 3)
MAX_DIMENSIONS = 4
STRING, ARRAY = 8, 9
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


@dataclass(frozen=True)
class GgufTensor:
    """One tensor.

    `shape` is outermost first, as in numpy; `kind` is ggml's number of its block type.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int  # bytes from the start of the file
    size: int  # bytes


class DamagedGguf(ValueError):
    """The file does not contain what its header says."""


class Gguf:
    """An open file: `fields` (name -> Python value or list), `tensors`, and `array(tensor)`."""

    def __init__(self, path: Path) -> None:
        """Raise ModelError when the file is damaged or not GGUF."""
        self.path = path
        self.fields: dict[str, Any] = {}
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._at = 0
            self.tensors = self._header()
        except (ValueError, struct.error) as error:
            raise ModelError(
                f"not a readable GGUF file ({error}).",
                where=str(path),
                next_step="Download or copy it again.",
            ) from error

    def array(self, tensor: GgufTensor) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the exact fp32 values that the tensor's blocks represent."""
        from gguf import GGMLQuantizationType, dequantize

        data = np.frombuffer(self._data, np.uint8, tensor.size, tensor.start)
        rows = data.reshape(*tensor.shape[:-1], -1)
        values = dequantize(rows, GGMLQuantizationType(tensor.kind))
        return np.asarray(values, dtype=np.float32).reshape(tensor.shape)

    def _header(self) -> tuple[GgufTensor, ...]:
        if self._take(4) != b"GGUF":
            raise DamagedGguf("it does not begin with GGUF")
        if (version := self._number("I")) not in VERSIONS:
            raise DamagedGguf(f"the version must be one of {VERSIONS}, got {version}")
        tensors, fields = self._number("Q"), self._number("Q")
        for _ in range(fields):
            name = self._string()
            if name in self.fields:
                raise DamagedGguf(f"{name!r} occurs twice")
            self.fields[name] = self._value(self._number("I"))
        described = [self._describe() for _ in range(self._fits(tensors, 24))]
        alignment = self.fields.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment not in (1 << bit for bit in range(20)):
            raise DamagedGguf(f"the alignment must be a power of 2, got {alignment!r}")
        start = -(-self._at // alignment) * alignment
        return tuple(self._place(start, *entry) for entry in described)

    def _describe(self) -> tuple[str, tuple[int, ...], int, int]:
        """Return name, shape, kind and offset of the next tensor."""
        name, dimensions = self._string(), self._number("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise DamagedGguf(f"tensor {name!r} has {plural(dimensions, 'dimension')}")
        shape = tuple(reversed([self._number("Q") for _ in range(dimensions)]))
        return name, shape, self._number("I"), self._number("Q")

    def _place(
        self, start: int, name: str, shape: tuple[int, ...], kind: int, offset: int
    ) -> GgufTensor:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        per_block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        size = math.prod(shape) // per_block * block_bytes
        if (
            math.prod(shape) == 0
            or shape[-1] % per_block
            or start + offset + size > len(self._data)
        ):
            raise DamagedGguf(f"tensor {name!r} of shape {shape} does not fit in the file")
        return GgufTensor(name, shape, kind, start + offset, size)

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind != ARRAY:
            raise DamagedGguf(f"unknown value type {kind}")
        inner, count = self._number("I"), self._number("Q")
        if inner == STRING:
            return [self._string() for _ in range(self._fits(count, 8))]
        if inner not in SCALARS:
            raise DamagedGguf(f"unknown array type {inner}")
        size = struct.calcsize("<" + SCALARS[inner])
        raw = self._take(self._fits(count, size) * size)
        return np.frombuffer(raw, np.dtype("<" + SCALARS[inner])).tolist()

    def _fits(self, count: int, size: int) -> int:
        """Return `count` if that many items of at least `size` bytes can follow, else raise."""
        if count * size > len(self._data) - self._at:
            raise DamagedGguf(
                f"{plural(count, 'item is', 'items are')} claimed at byte {self._at}, more than"
                " the file contains"
            )
        return count

    def _take(self, count: int) -> bytes:
        self._fits(count, 1)
        self._at += count
        return self._data[self._at - count : self._at]

    def _string(self) -> str:
        return self._take(self._number("Q")).decode()

    def _number(self, kind: str) -> Any:
        layout = "<" + kind
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]
