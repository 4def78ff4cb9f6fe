"""A model trained in full, as files: weights by name in a checkpoint, a model folder at the end.

Weights are written in float32, as they were trained, so that nothing is rounded; where `dtype` is
bfloat16, they are the masters, which a model loaded in bfloat16 rounds as the training did. Left
out: models whose library holds other tensors than the folder does, which could not be written back.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
from safetensors import safe_open
from safetensors.numpy import save

from offapi.episodes import Floats
from offapi.errors import ModelError
from offapi.files.float_tensors import decode_floats
from offapi.models.source import kept_files
from offapi.optimizer import Arrays

WEIGHTS = "model.safetensors"
AGAIN = "Take the folder from its run again, or train again."
TIED = "lm_head.weight"  # some folders repeat the embedding under this name
REFERENCE = 4  # bytes of each weight as it was loaded, for a run that compares with that


def encode(weights: Arrays) -> bytes:
    """Return the safetensors file of these weights, in the order of their names."""
    ordered = {name: np.ascontiguousarray(weights[name], np.float32) for name in sorted(weights)}
    content: bytes = save(ordered, metadata={"format": "pt"})
    return content


def read(folder: Path) -> Arrays:
    """Return the weights in a checkpoint; raise ModelError where they are damaged or missing."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{WEIGHTS} is missing.", where=str(folder), next_step=AGAIN)
    return decode_floats(path.read_bytes(), path, AGAIN)


def check_as_stored(base: Path, weights: Arrays) -> None:
    """Raise ModelError unless the loaded `weights` are those in the folder, name by name.

    A library may join, turn or shift tensors as it loads them; written back, they would be read so
    a second time.
    """
    left = set(weights)
    for name, stored in _stored(base):
        if name not in weights:
            if name != TIED:
                raise _otherwise(base, name)
            continue
        same = stored.shape == weights[name].shape and np.array_equal(stored, weights[name])
        if not same:
            raise _otherwise(base, name)
        left.discard(name)
    if left:
        raise _otherwise(base, min(left))


def model_files(base: Path, weights: Arrays) -> dict[str, bytes]:
    """Return the files of a model folder: the base's, with these weights in place of its own."""
    kept = [path for path in kept_files(base) if not path.name.startswith(("model", "README"))]
    files = {path.name: path.read_bytes() for path in kept}
    config = orjson.loads(files["config.json"])
    for key in ("dtype", "torch_dtype"):
        if key in config:
            config[key] = "float32"
    files["config.json"] = orjson.dumps(config, option=orjson.OPT_INDENT_2)
    return {**files, WEIGHTS: encode(weights)}


def count_weights(base: Path) -> int:
    """Return how many weights the model in a folder has."""
    count = 0
    for path in _files(base):
        with safe_open(path, "np") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                count += int(np.prod(tensors.get_slice(name).get_shape()))
    return count


def _files(base: Path) -> list[Path]:
    return sorted(base.glob("model*.safetensors"))


def _stored(base: Path) -> Iterator[tuple[str, Floats]]:
    for path in _files(base):
        yield from decode_floats(path.read_bytes(), path, "Run `offapi models verify`.").items()


def _otherwise(base: Path, name: str) -> ModelError:
    return ModelError(
        f"this model cannot be trained in full: {name!r} is not held in memory as it is stored.",
        where=str(base),
        next_step="Train an adapter (leave out `full`), or try the other backend.",
    )
