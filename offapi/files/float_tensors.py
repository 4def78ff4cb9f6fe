"""Tensors of floating point numbers from a safetensors file, and the file's metadata.

Left out: whole numbers and the 8-bit kinds, which no adapter is made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from offapi.errors import ModelError

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16}

Floats = NDArray[np.float32]


def decode_floats(content: bytes, path: Path, next_step: str) -> dict[str, Floats]:
    """Return the tensors by name, in fp32. Raise ModelError where one is not of finite numbers."""
    try:
        tensors = deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise ModelError(
            f"damaged safetensors ({error}).", where=str(path), next_step=next_step
        ) from error
    floats = {}
    for name, entry in sorted(tensors, key=lambda tensor: tensor[0]):
        array = _as_float32(entry)
        if array is None:
            what = f"tensor {name!r} must be of floating point numbers, got {entry['dtype']}."
            raise ModelError(what, where=str(path), next_step=next_step)
        if not np.isfinite(array).all():
            raise ModelError(
                f"tensor {name!r} has numbers that are not finite (NaN, or infinite in float32).",
                where=str(path),
                next_step="The training that made it failed: take an earlier one, or train again.",
            )
        floats[name] = array
    return floats


def _as_float32(entry: Mapping[str, Any]) -> Floats | None:
    dtype, data = entry["dtype"], bytes(entry["data"])
    if dtype == "BF16":  # the upper half of a float32
        array = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif dtype in DTYPES:
        with np.errstate(over="ignore"):
            array = np.frombuffer(data, DTYPES[dtype]).astype(np.float32)
    else:
        return None
    return array.reshape(entry["shape"])


def with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return the file with `metadata` in that order; the library writes keys in any order."""
    size = 8 + int.from_bytes(content[:8], "little")
    header = orjson.dumps(orjson.loads(content[8:size]) | {"__metadata__": metadata})
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[size:]


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the file's metadata, {} where it has none or cannot be read."""
    content = path.read_bytes() if path.is_file() else b""
    try:
        header = orjson.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except ValueError:
        return {}
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}
