"""What a result depends on: the manifests of runs and arms, and the folder names made from them.

Resuming a run and finding an arm again compare these values, so they must not change between
versions. Left out: the attempts that `offapi.training.run` adds to a run's manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from offapi import __version__
from offapi.config import load as configs
from offapi.errors import ConfigError, DataError, OffapiError
from offapi.files.hashing import sha256_named, sha256_path
from offapi.models import store
from offapi.models.lock import LOCK

# A resumed run may change these: no result depends on them.
MAY_CHANGE = ("allow", "workers", "reward_seconds", "shard")
DIGITS = 12  # of a hash in a folder's name
# Keys that version 0.1 did not have, with what it did: so its runs resume and its arms are found.
LATER: dict[str, Any] = {
    "constrain": "off",
    "credit": "episode",
    "gold": "audit",
    "checkpointing": "auto",
    "escalated": False,
    "shard": False,
    "template": {},
    "full": False,
    "lora.rslora": False,
    "lora.dora": False,
    "lora.layers": (),
    "lora.exclude": (),
    "lora.ranks": {},
    "lora.alphas": {},
    "optimizer.bits": 32,
}


def describe_run(config: Any) -> dict[str, Any]:
    """Return the manifest of a recipe's run: its keys as resolved and a hash of all it reads.

    Raises ConfigError for a file that cannot be read.
    """
    reads = {**config.reads(), "model": _locked(config.model)}
    keys = _keys(config)
    for name in MAY_CHANGE:
        keys.pop(name, None)
    step = "Check the path. Relative paths start at the folder of the recipe file."
    hashes = {name: _hash(sha256_named, path, ConfigError, step) for name, path in reads.items()}
    return {"config": keys, "sha256": hashes}


def as_begun(manifest: Mapping[str, Any], began: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Return `manifest` with the limits and the places in `began`, what its run began with.

    So a run that ran out of memory can be resumed with lower limits, and one whose folder or files
    have moved at all: the hashes of the files say whether they are the same.
    """
    keys = dict(manifest["config"])
    for name in ("limits", "name", "out", "model", *config.reads()):
        if name in began.get("config", {}):
            keys[name] = began["config"][name]
    return {**manifest, "config": keys}


def describe_arm(recipe: str, config: Any, backend: str, start: str | None) -> dict[str, Any]:
    """Return what a comparison's arm depends on, whatever the paths of the files it reads.

    `start` is the folder name of the arm whose student it continues. Raises DataError for a file
    that cannot be read.
    """
    reads = config.reads()
    places = {"name", "out", "model", "adapter", *reads}
    keys = {name: value for name, value in _keys(config).items() if name not in places}
    step = "Check the path. Relative paths start at the folder of the file that names them."
    hashes = {name: _hash(sha256_path, path, DataError, step) for name, path in reads.items()}
    return {
        "road": recipe,
        "backend": backend,
        "offapi": __version__,
        "config": keys,
        "sha256": {**hashes, "model": hash_model(config.model)},
        "start": start,
    }


def describe_answers(backend: str, hashes: Mapping[str, str], **settings: Any) -> dict[str, Any]:
    """Return what a model's answers depend on: hashes of all that is read, and `settings`."""
    return {"backend": backend, "offapi": __version__, **settings, "sha256": dict(hashes)}


def name_folder(kind: str, manifest: Mapping[str, Any]) -> str:
    """Return `sft-0123456789ab`: the same name for the same manifest."""
    digest = hashlib.sha256(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return f"{kind.replace('_', '-')}-{digest[:DIGITS]}"


def _keys(config: Any) -> dict[str, Any]:
    """Return the keys of `config` as resolved, less the later ones at what was done before."""
    return _less_later(configs.resolved(config))


def _less_later(keys: Mapping[str, Any], table: str = "") -> dict[str, Any]:
    kept = {}
    for name, value in keys.items():
        dotted = table + name
        if dotted not in LATER or value != LATER[dotted]:
            inside = isinstance(value, dict) and not table
            kept[name] = _less_later(value, f"{dotted}.") if inside else value
    return kept


def hash_model(model: str | Path) -> str:
    """Return the SHA-256 of a stored model's lock, or of the folder of one that has none."""
    return sha256_path(_locked(model))


def _locked(model: str | Path) -> Path:
    """Return the lock of a model in the store, which stands for all its bytes, or its folder."""
    folder = store.get(model).path
    lock = folder / LOCK
    return lock if lock.is_file() else folder


def _hash(
    hashed: Callable[[Path], str], path: Path, kind: type[OffapiError], next_step: str
) -> str:
    try:
        return hashed(path)
    except OSError as error:
        what = f"the file cannot be read: {error.strerror}."
        raise kind(what, where=str(path), next_step=next_step) from None
