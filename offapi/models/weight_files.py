"""The weights of a model folder: safetensors files that match each other and the index.

Loaders disagree on what to read: torch follows the index, or reads `model.safetensors` alone; MLX
reads every `model*.safetensors`. A folder is accepted only where both read the same tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offapi.errors import ModelError
from offapi.models.settings_files import SOURCE, read_json
from offapi.text.display import plural

MAX_DIMENSIONS = 8
MAX_HEADER = 4_000_000  # bytes; a header of 100 MB takes a minute to read
DTYPES = (
    *("F64", "I64", "U64", "F32", "I32", "U32", "F16", "BF16", "I16", "U16", "BOOL", "I8", "U8"),
    *("F8_E4M3", "F8_E5M2", "F8_E8M0"),
)
ONE, INDEX = "model.safetensors", "model.safetensors.index.json"

Tensors = dict[str, tuple[str, tuple[int, ...]]]  # name -> dtype, shape


def check_weights(folder: Path) -> Tensors:
    """Return name -> (dtype, shape) over all `model*.safetensors`.

    Raise ModelError where they do not match each other or the index.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ModelError(
            "the folder has no model*.safetensors.",
            where=str(folder),
            next_step="Add safetensors or a GGUF file.",
        )
    tensors: Tensors = {}
    holds: dict[str, str] = {}  # tensor -> the name of its file
    for path in files:
        header = check_header(path)
        if twice := sorted(tensors.keys() & header.keys()):
            raise ModelError(
                f"tensor {twice[0]!r} is in two files.", where=str(path), next_step=SOURCE
            )
        tensors |= header
        holds |= dict.fromkeys(header, path.name)
    _check_index(folder, holds)
    _check_names(folder, [path.name for path in files])
    return tensors


def _check_index(folder: Path, holds: Mapping[str, str]) -> None:
    """Raise ModelError unless the index, if there is one, names for each tensor its own file."""
    index = folder / INDEX
    if not index.is_file():
        return
    content = read_json(index)
    listed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or listed.keys() != holds.keys():
        raise ModelError(
            "the index lists other tensors than the files contain.",
            where=str(index),
            next_step="Copy it again.",
        )
    wrong = next((name for name in holds if listed[name] != holds[name]), None)
    if wrong is not None:
        raise ModelError(
            f"the index places tensor {wrong!r} in {listed[wrong]!r}; it is in {holds[wrong]!r}.",
            where=str(index),
            next_step=SOURCE,
        )


def _check_names(folder: Path, names: list[str]) -> None:
    """Raise ModelError where torch would not read the files that MLX reads."""
    if names == [ONE]:
        return
    if ONE in names:
        other = next(name for name in names if name != ONE)
        raise ModelError(
            f"the folder has {ONE} and also {other}; torch would read {ONE} alone.",
            where=str(folder),
            next_step="Keep the files of one copy of the model.",
        )
    if not (folder / INDEX).is_file():
        raise ModelError(
            f"the weights are in {names[0]} and there is no {INDEX}.",
            where=str(folder),
            next_step=f"Copy the index too. If {names[0]} is the only file, rename it to {ONE}.",
        )


def check_header(path: Path) -> Tensors:
    """Return name -> (dtype, shape). Raise ModelError unless the tensors fill the file exactly.

    The library checks types, sizes and offsets. It accepts what other loaders read differently:
    duplicate or unknown keys, rarer dtypes, many dimensions. Those are refused here.
    """
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER:
            raise damaged(
                f"its header is too large ({plural(size, 'byte')}, at most {MAX_HEADER})", path
            )
        raw = file.read(size)
    try:
        with safe_open(path, "np"):
            pass
    except SafetensorError as error:
        raise damaged(str(error).removeprefix("Error while deserializing header: "), path) from None
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise damaged(str(error), path) from None
    if not isinstance(header.pop("__metadata__", {}), dict):
        raise damaged("its metadata is not an object", path)
    return {name: _described(name, entry, path) for name, entry in header.items()}


def _described(name: str, entry: Any, path: Path) -> tuple[str, tuple[int, ...]]:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [*_]} if len(entry) == 3:
            if dtype in DTYPES and len(shape) <= MAX_DIMENSIONS:
                return dtype, tuple(shape)
            raise damaged(f"tensor {name!r} has dtype {dtype!r} and shape {shape!r}", path)
    raise damaged(f"tensor {name!r} is not described by dtype, shape and data_offsets", path)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice")
    return value


def damaged(what: str, path: Path) -> ModelError:
    """Return the error for a safetensors file that is not one, or not a plain one."""
    return ModelError(
        f"damaged safetensors: {what}.",
        where=str(path),
        next_step="Download or copy the file again.",
    )
