"""Safetensors files read and written tensor by tensor, so that one tensor at a time is in memory.

Left out: every dtype but float32, float16 and bfloat16, in which models are stored to be trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from offapi.episodes import Floats
from offapi.errors import ModelError

BYTES = {"F32": 4, "F16": 2, "BF16": 2}
NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: its dtype as safetensors names it, and where its bytes are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int  # bytes from the beginning of the file
    size: int  # bytes


def read_layout(path: Path) -> list[StoredTensor]:
    """Return the tensors of a file in the order of their bytes.

    Raise ModelError for a dtype that cannot be exported.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = orjson.loads(file.read(size))
    header.pop("__metadata__", None)
    tensors = [_stored(name, entry, 8 + size, path) for name, entry in header.items()]
    return sorted(tensors, key=lambda tensor: tensor.start)


def _stored(name: str, entry: dict[str, Any], begin: int, path: Path) -> StoredTensor:
    dtype, (start, stop) = str(entry["dtype"]), entry["data_offsets"]
    if dtype not in BYTES:
        raise ModelError(
            f"tensor {name!r} must be {', '.join(NAMES.values())}, got {dtype}.",
            where=str(path),
            next_step="Export a run whose base model is stored in one of them.",
        )
    return StoredTensor(name, dtype, tuple(entry["shape"]), begin + start, stop - start)


def read_tensor(path: Path, tensor: StoredTensor) -> Floats:
    """Return one tensor in float32, in which every stored number is exact."""
    with path.open("rb") as file:
        file.seek(tensor.start)
        data = file.read(tensor.size)
    if tensor.dtype == "BF16":  # the upper half of a float32
        whole = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return whole.view(np.float32).reshape(tensor.shape)
    kind = np.float32 if tensor.dtype == "F32" else np.float16
    return np.frombuffer(data, kind).astype(np.float32).reshape(tensor.shape)


def encode_tensor(numbers: Floats, dtype: str) -> bytes:
    """Return the bytes of `numbers` in `dtype`, each rounded to the nearest, ties to even."""
    if dtype == "BF16":
        return _upper_halves(np.ascontiguousarray(numbers, np.float32)).tobytes()
    kind = np.float32 if dtype == "F32" else np.float16
    with np.errstate(over="ignore"):  # an infinity is reported by the check
        return np.ascontiguousarray(numbers, kind).tobytes()


def _upper_halves(numbers: Floats) -> NDArray[np.uint16]:
    bits = numbers.view(np.uint32)
    rounding = ((bits >> 16) & 1) + np.uint32(0x7FFF)
    halves: NDArray[np.uint16] = ((bits + rounding) >> 16).astype(np.uint16)
    return halves


def write_like(path: Path, like: Path, tensors: Iterator[tuple[str, Floats]]) -> None:
    """Write a file with the header of `like` and the numbers of `tensors`, in its order of bytes.

    Raise ValueError for another tensor than comes next.
    """
    layout = read_layout(like)
    with like.open("rb") as source, path.open("xb") as file:
        size = int.from_bytes(source.read(8), "little")
        file.write(size.to_bytes(8, "little") + source.read(size))
        for tensor in layout:
            name, numbers = next(tensors)
            if name != tensor.name or numbers.shape != tensor.shape:
                raise ValueError(f"tensor {tensor.name!r} must come next, got {name!r}")
            file.write(encode_tensor(numbers, tensor.dtype))
