"""What a model folder must be before any loader sees it: plain tensors, plain settings, no code.

Loaders have trusted offsets, `auto_map`, `model_file` and pickles from model folders, so the header
and the settings are checked here first. Left out: the chat template's behaviour. Its size is
capped; transformers renders it in jinja2's ImmutableSandboxedEnvironment, which stops code but not
a slow loop: that is what `template_trial` is for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from offapi.errors import ModelError

MAX_HEADER = 100_000_000  # bytes
MAX_DIMENSIONS = 8
MAX_TEMPLATE = 100_000  # bytes
MAX_JSON = {
    "tokenizer.json": 64_000_000,
    "model.safetensors.index.json": 64_000_000,
    "vocab.json": 64_000_000,
}
MAX_OTHER_JSON = 4_000_000  # bytes
BITS = {
    **dict.fromkeys(("F64", "I64", "U64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
}
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
CODE_KEYS = (
    "auto_map",
    "model_file",
    "custom_pipeline",
    "custom_pipelines",
    "trust_remote_code",
    "_attn_implementation_internal",
)
CODE_FILES = (".py", ".pyc", ".so", ".dylib", ".dll")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
SOURCE = "Take the model from somewhere you trust, or ask its author for plain safetensors."


def check_folder(folder: Path) -> None:
    """Raises ModelError unless `folder` holds a model that can be loaded without trusting it."""
    for path in sorted(folder.rglob("*")):
        check_inside(path, folder)
        if path.is_dir():
            continue
        if path.suffix.lower() in PICKLES:
            raise ModelError(
                "a pickle can run code when it is loaded.",
                where=str(path),
                next_step=(
                    "Delete it if the weights are also there as safetensors, and add the"
                    f" folder again. {SOURCE}"
                ),
            )
        if path.suffix.lower() in CODE_FILES:
            raise ModelError("a model folder may not hold code.", where=str(path), next_step=SOURCE)
        if path.suffix == ".jinja" and path.stat().st_size > MAX_TEMPLATE:
            raise ModelError(
                f"the chat template exceeds {MAX_TEMPLATE} bytes.",
                where=str(path),
                next_step=SOURCE,
            )
        if path.suffix == ".json":
            check_settings(read_json(path), path)
    check_config(folder)
    check_weights(folder)


def check_inside(path: Path, folder: Path) -> None:
    """Raises ModelError when `path` leads out of `folder`
    (a hub cache's snapshot may lead to its own blobs).
    """
    root = folder.resolve()
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        root = root.parent.parent
    if not path.resolve().is_relative_to(root):
        raise ModelError(
            "links out of the model folder.",
            where=str(path),
            next_step="Copy the file itself there.",
        )


def read_json(path: Path) -> Any:
    """The parsed file. Raises ModelError when it is too large or not JSON."""
    limit = MAX_JSON.get(path.name, MAX_OTHER_JSON)
    if path.stat().st_size > limit:
        raise ModelError(
            f"larger than the {limit} bytes such a file may have.",
            where=str(path),
            next_step=SOURCE,
        )
    try:
        return orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ModelError(
            f"not valid JSON ({error}).", where=str(path), next_step="Copy the file again."
        ) from None


def check_settings(value: Any, path: Path) -> None:
    """Raises ModelError for a setting, at any depth,
    that makes some loader run code from elsewhere.
    """
    if path.name in ("tokenizer.json", "vocab.json"):
        return
    for key, entry in _items(value):
        hub = "implementation" in key and isinstance(entry, str) and "/" in entry
        if (key in CODE_KEYS and entry not in (None, False)) or hub:
            raise ModelError(
                f"`{key}` asks the loader to run code.", where=str(path), next_step=SOURCE
            )
        if key == "chat_template" and len(orjson.dumps(entry)) > MAX_TEMPLATE:
            raise ModelError(
                f"the chat template exceeds {MAX_TEMPLATE} bytes.",
                where=str(path),
                next_step=SOURCE,
            )


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield key, entry
            yield from _items(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _items(entry)


def check_config(folder: Path) -> dict[str, Any]:
    """config.json as a dict.

    Raises ModelError for a model type or a quantisation that is not known.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(
            "no config.json here.", where=str(folder), next_step="A model folder has one."
        )
    config = read_json(path)
    if not isinstance(config, dict) or config.get("model_type") not in MODEL_TYPES:
        found = config.get("model_type") if isinstance(config, dict) else None
        raise ModelError(
            f"model type {found!r} is not one that both backends compute alike.",
            where=f"{path}, field 'model_type'",
            next_step=f"Known: {', '.join(MODEL_TYPES)}.",
        )
    other = config.get("quantization_config")
    if other is not None and other != config.get("quantization"):
        raise ModelError(
            "these quantised weights are not MLX's and cannot be trained.",
            where=f"{path}, field 'quantization_config'",
            next_step="Add the unquantised model.",
        )
    return config


def check_weights(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape) over all `model*.safetensors`.

    Raises ModelError where they or the index do not fit.
    """
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ModelError(
            "no model*.safetensors here.",
            where=str(folder),
            next_step="Add safetensors or a GGUF file.",
        )
    for path in files:
        header = check_header(path)
        if twice := sorted(found.keys() & header.keys()):
            raise ModelError(
                f"tensor {twice[0]!r} is in two files.", where=str(path), next_step=SOURCE
            )
        found |= header
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        content = read_json(index)
        wanted = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(wanted, dict) or wanted.keys() != found.keys():
            raise ModelError(
                "lists other tensors than the files hold.",
                where=str(index),
                next_step="Copy it again.",
            )
    return found


def check_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape). Raises ModelError unless the tensors tile the file exactly.

    The layout is the safetensors format's: 8 bytes of little-endian header size, JSON, data.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_HEADER, size - 8):
            raise _damaged(f"the header claims {length} bytes", path)
        raw = file.read(length)
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _damaged(str(error), path) from None
    if not isinstance(header, dict):
        raise _damaged("the header is not an object", path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise _damaged("its metadata is not text", path)
    return _check_tensors(header, size - 8 - length, path)


def _check_tensors(
    header: Mapping[str, Any], size: int, path: Path
) -> dict[str, tuple[str, tuple[int, ...]]]:
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    spans = []
    for name, entry in header.items():
        match entry:
            case {
                "dtype": str(dtype),
                "shape": [*shape],
                "data_offsets": [int(start), int(end)],
            } if len(entry) == 3:
                pass
            case _:
                raise _damaged(
                    f"tensor {name!r} is not described by dtype, shape and data_offsets", path
                )
        if (
            dtype not in BITS
            or len(shape) > MAX_DIMENSIONS
            or not all(type(n) is int and n >= 0 for n in shape)
        ):
            raise _damaged(f"tensor {name!r} has dtype {dtype!r} and shape {shape!r}", path)
        if end - start != math.prod(shape) * BITS[dtype] // 8:
            raise _damaged(
                f"tensor {name!r} spans {end - start} bytes, not what its shape needs", path
            )
        spans.append((start, end, name))
        found[name] = (dtype, tuple(shape))
    expected = 0
    for start, end, name in sorted(spans):
        if start != expected:
            raise _damaged(f"tensor {name!r} starts at {start} instead of {expected}", path)
        expected = end
    if expected != size:
        raise _damaged(f"the tensors end at {expected}, the data at {size}", path)
    return found


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _damaged(what: str, path: Path) -> ModelError:
    return ModelError(
        f"damaged safetensors: {what}.",
        where=str(path),
        next_step="Download or copy the file again.",
    )
