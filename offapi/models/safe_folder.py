"""What a model folder must be before any loader sees it: plain tensors, plain settings, no code.

Loaders have trusted offsets, `auto_map`, `model_file` and pickles from model folders, so the header
and the settings are checked here first. Left out: the chat template's behaviour. Its size is
limited; transformers renders it in jinja2's ImmutableSandboxedEnvironment, which stops code but not
a slow loop, so `template_probe` checks that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from offapi.errors import ModelError

MAX_DIMENSIONS = 8
MAX_TEMPLATE = 100_000  # bytes
MAX_JSON = {
    "tokenizer.json": 64_000_000,
    "model.safetensors.index.json": 64_000_000,
    "vocab.json": 64_000_000,
}
MAX_OTHER_JSON = 4_000_000  # bytes
DTYPES = (
    *("F64", "I64", "U64", "F32", "I32", "U32", "F16", "BF16", "I16", "U16", "BOOL", "I8", "U8"),
    *("F8_E4M3", "F8_E5M2", "F8_E8M0"),
)
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
    """Raise ModelError unless the model in `folder` can be loaded without trusting it."""
    for path in sorted(folder.rglob("*")):
        check_inside(path, folder)
        if path.is_dir():
            continue
        if path.suffix.lower() in PICKLES:
            raise ModelError(
                "a pickle can run code when it is loaded.",
                where=str(path),
                next_step=(
                    "Delete it if the folder also has the weights as safetensors, then add the"
                    f" folder again. {SOURCE}"
                ),
            )
        if path.suffix.lower() in CODE_FILES:
            raise ModelError(
                "a model folder must not contain code.", where=str(path), next_step=SOURCE
            )
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
    """Raise ModelError when `path` leads out of `folder`.

    A hub cache's snapshot may lead to its own blobs.
    """
    root = folder.resolve()
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        root = root.parent.parent
    if not path.resolve().is_relative_to(root):
        raise ModelError(
            "the link leads out of the model folder.",
            where=str(path),
            next_step="Replace it with the file itself.",
        )


def read_json(path: Path) -> Any:
    """Return the parsed file. Raise ModelError when it is too large or not JSON."""
    limit = MAX_JSON.get(path.name, MAX_OTHER_JSON)
    if path.stat().st_size > limit:
        raise ModelError(
            f"the file must not exceed {limit} bytes.",
            where=str(path),
            next_step=SOURCE,
        )
    try:
        return orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ModelError(
            f"the file is not valid JSON ({error}).",
            where=str(path),
            next_step="Copy the file again.",
        ) from None


def check_settings(value: Any, path: Path) -> None:
    """Raise ModelError for a setting, at any depth, that makes a loader run code from elsewhere."""
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
    """Return config.json as a dict.

    Raise ModelError for an unsupported model type or quantisation.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(
            "the folder has no config.json.",
            where=str(folder),
            next_step="Name a model folder, which has one.",
        )
    config = read_json(path)
    if not isinstance(config, dict) or config.get("model_type") not in MODEL_TYPES:
        model_type = config.get("model_type") if isinstance(config, dict) else None
        raise ModelError(
            f"the model type must be one that both backends compute alike, got {model_type!r}.",
            where=f"{path}, field 'model_type'",
            next_step=f"Supported: {', '.join(MODEL_TYPES)}.",
        )
    other = config.get("quantization_config")
    if other is not None and other != config.get("quantization"):
        raise ModelError(
            "only weights quantised for MLX can be trained, not these.",
            where=f"{path}, field 'quantization_config'",
            next_step="Add the unquantised model.",
        )
    return config


def check_weights(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return name -> (dtype, shape) over all `model*.safetensors`.

    Raise ModelError where they do not match each other or the index.
    """
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ModelError(
            "the folder has no model*.safetensors.",
            where=str(folder),
            next_step="Add safetensors or a GGUF file.",
        )
    for path in files:
        header = check_header(path)
        if twice := sorted(tensors.keys() & header.keys()):
            raise ModelError(
                f"tensor {twice[0]!r} is in two files.", where=str(path), next_step=SOURCE
            )
        tensors |= header
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        content = read_json(index)
        wanted = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(wanted, dict) or wanted.keys() != tensors.keys():
            raise ModelError(
                "the index lists other tensors than the files contain.",
                where=str(index),
                next_step="Copy it again.",
            )
    return tensors


def check_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return name -> (dtype, shape). Raise ModelError unless the tensors fill the file exactly.

    The library checks types, sizes and offsets. It accepts what other loaders read differently:
    duplicate or unknown keys, rarer dtypes, many dimensions. Those are refused here.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            pass
    except SafetensorError as error:
        raise _damaged(
            str(error).removeprefix("Error while deserializing header: "), path
        ) from None
    with path.open("rb") as file:
        raw = file.read(int.from_bytes(file.read(8), "little"))
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _damaged(str(error), path) from None
    if not isinstance(header.pop("__metadata__", {}), dict):
        raise _damaged("its metadata is not an object", path)
    return {name: _described(name, entry, path) for name, entry in header.items()}


def _described(name: str, entry: Any, path: Path) -> tuple[str, tuple[int, ...]]:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [*_]} if len(entry) == 3:
            if dtype in DTYPES and len(shape) <= MAX_DIMENSIONS:
                return dtype, tuple(shape)
            raise _damaged(f"tensor {name!r} has dtype {dtype!r} and shape {shape!r}", path)
    raise _damaged(f"tensor {name!r} is not described by dtype, shape and data_offsets", path)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _damaged(what: str, path: Path) -> ModelError:
    return ModelError(
        f"damaged safetensors: {what}.",
        where=str(path),
        next_step="Download or copy the file again.",
    )
