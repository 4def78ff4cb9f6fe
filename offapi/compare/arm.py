"""An arm of a comparison: one road with all its keys
and inputs, in a run folder named by their hash.

So the same arm is the same folder: done before, it
is not done again; under way, it is gone on with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from offapi import __version__
from offapi.backend import LoraSpec
from offapi.compare.config import Keys, RecipeName
from offapi.compare.data import Rows, write_rows
from offapi.config.load import resolved
from offapi.errors import DataError
from offapi.files.hashing import sha256_path
from offapi.models import store
from offapi.models.lock import LOCK

ARMS, DATA = "arms", "arms/data"  # folders in `out`: the arms of all comparisons, what they read
DIGITS = 12  # of a hash in a name


@dataclass(frozen=True)
class Arm:
    """A road to take. `manifest` is all its result depends on; `config` its recipe's."""

    recipe: RecipeName
    config: Any
    manifest: Mapping[str, Any]
    path: Path
    start: Arm | None = None  # the arm whose student it goes on from

    @property
    def lora(self) -> LoraSpec:
        """The shape of the adapter, also before the start's is there."""
        shape: LoraSpec = self.config.lora
        return shape


def make_arm(
    keys: Keys,
    recipe: RecipeName,
    rows: Rows,
    backend: str,
    data: Path,
    *,
    start: Arm | None = None,
    **more: Any,
) -> Arm:
    """The arm of `road` on `rows`, which are written to
    the folder `data`; `more` keys go over the file's.
    """
    file = write_rows(data, rows)
    inputs: dict[str, Any] = {
        "traces" if recipe == "filtered_sft" else "data": file,
        "val": keys.val,
    }
    if recipe == "distill":
        inputs |= {"labels": keys.labels} if keys.labels else {"teacher": keys.teacher}
    config = keys.recipe_config(recipe, **inputs)
    config = replace(config, out=keys.out / ARMS, **more)
    manifest = arm_manifest(config, recipe, backend, start)
    name = arm_name(recipe, manifest)
    if start is not None:
        config = replace(config, adapter=start.path / "adapter")
    return Arm(
        recipe, replace(config, name=name), manifest, (keys.out / ARMS / name).absolute(), start
    )


def arm_manifest(
    config: Any, recipe: RecipeName, backend: str, start: Arm | None
) -> dict[str, Any]:
    """What the arm depends on: keys without places, hashes of what is read, model, version."""
    reads = config.reads()
    places = {"name", "out", "model", "adapter", *reads}
    keys = {name: value for name, value in resolved(config).items() if name not in places}
    hashes = {name: _digest(path) for name, path in reads.items()} | {
        "model": model_hash(config.model)
    }
    return {
        "road": recipe,
        "backend": backend,
        "offapi": __version__,
        "config": keys,
        "sha256": hashes,
        "start": start.path.name if start else None,
    }


def arm_name(kind: str, manifest: Mapping[str, Any]) -> str:
    """`sft-0123456789ab`: the folder's name."""
    digest = hashlib.sha256(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return f"{kind.replace('_', '-')}-{digest[:DIGITS]}"


def model_hash(model: str) -> str:
    """Of the lock of a stored model, else of the folder."""
    folder = store.get(model).path
    return sha256_path(folder / LOCK if (folder / LOCK).is_file() else folder)


def _digest(path: Path) -> str:
    try:
        return sha256_path(path)
    except OSError as error:
        step = "Check the path; relative ones are relative to the file that names them."
        raise DataError(
            f"cannot be read: {error.strerror}.", where=str(path), next_step=step
        ) from None
