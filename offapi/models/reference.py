"""An independent reference of what a model computes: the library's plain forward, in float32.

transformers where torch is installed, else mlx-lm: neither knows of this project's packed rows,
shared prefixes and caches, so that a backend which is wrong cannot agree with itself. Left out:
adapters, and other dtypes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import orjson

from offapi import backend as backends
from offapi.episodes import Floats
from offapi.errors import ModelError
from offapi.implementations import GROWING_ROPES

LONGEST = 100  # tokens: a window beyond is measured on a copy whose windows are SHORT
SHORT = 48
WINDOWS = ("sliding_window", "attention_chunk_size", "original_max_position_embeddings")


class PlainModel(Protocol):
    """One model, computed by its library alone."""

    by: str

    def logprobs(self, tokens: tuple[int, ...]) -> Floats:
        """Return the logprobs (nats) of all tokens but the first."""
        ...

    def greedy(self, prompt: tuple[int, ...], count: int) -> tuple[list[int], list[float]]:
        """Return the tokens said greedily after `prompt`, and each one's margin (nats)."""
        ...


def reference_backend(config: Mapping[str, Any]) -> str:
    """Return the backend whose library is the reference for a model with that config."""
    return "mlx" if config.get("quantization") or find_spec("torch") is None else "torch"


def open_reference(folder: Path, config: Mapping[str, Any]) -> PlainModel:
    """Load the model in `folder` with its library alone.

    Raise BackendError where no library is installed, ModelError where it cannot read the folder.
    """
    name = reference_backend(config)
    home = sys.modules[backends.find(name).__module__].__name__.rpartition(".")[0]
    try:
        model: PlainModel = import_module(f"{home}.reference").open_reference(folder)
        return model
    except (RuntimeError, MemoryError):  # full memory is no fault of the folder's
        raise
    except Exception as error:  # whatever the library raises for a folder that it cannot read
        raise ModelError(
            f"its library cannot load the model: {error}",
            where=str(folder),
            next_step="Check that weights and config.json belong together.",
        ) from error


def shortened(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return `config` with short windows and limits, None if rows of LONGEST tokens pass all.

    Long rows would take minutes; the same code decides where a short window cuts. That a window of
    512 cuts in the same way is a conformance test, on a tiny Gemma 3.
    """
    rope = config.get("rope_parameters") or {}
    groups = [config, rope, *(value for value in rope.values() if isinstance(value, dict))]
    kinds = {str(group.get("rope_type")) for group in groups}
    grows = bool(kinds & set(GROWING_ROPES)) or any(
        "llama_4_scaling_beta" in group for group in groups
    )
    keys = WINDOWS if grows else WINDOWS[:2]
    found = [group[key] for group in groups for key in keys if type(group.get(key)) is int]
    limit = config.get("max_position_embeddings") if "dynamic" in kinds else None
    if not any(value > LONGEST for value in (*found, limit or 0)):
        return None
    short: dict[str, Any] = _shorten(config, keys)
    if "dynamic" in kinds:
        short["max_position_embeddings"] = SHORT
    return short


def _shorten(value: Any, keys: tuple[str, ...]) -> Any:
    """Return `value` with every number under one of `keys`, at any depth, at most SHORT."""
    if not isinstance(value, Mapping):
        return value
    return {
        key: min(each, SHORT) if key in keys and type(each) is int else _shorten(each, keys)
        for key, each in value.items()
    }


@contextmanager
def with_config(folder: Path, config: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a folder with the weights of `folder`, by links, and another config."""
    with TemporaryDirectory(prefix="offapi-") as made:
        copy = Path(made)
        for path in folder.iterdir():
            if path.name != "config.json" and not path.name.startswith("."):
                (copy / path.name).symlink_to(path)
        (copy / "config.json").write_bytes(orjson.dumps(config))
        yield copy
