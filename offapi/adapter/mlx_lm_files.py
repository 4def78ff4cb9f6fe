"""mlx-lm's own adapters: `adapters.safetensors`, and a config that is its training's options.

A and B are transposed, `scale` is alpha / rank, and a name is the module's path in mlx-lm. Left
out: `fine_tune_type = "full"`, which is not an adapter, and LoRA on embeddings and experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from offapi.adapter.names import EXPORT_AGAIN, magnitude, parameter
from offapi.adapter.targets import names_head
from offapi.episodes import Floats
from offapi.errors import ModelError
from offapi.files.float_tensors import decode_floats
from offapi.model_spec import LoraSpec
from offapi.optimizer import Arrays

WEIGHTS = "adapters.safetensors"
KINDS = ("lora", "dora")
FUSE = "Fuse it with `mlx_lm.fuse` and add the fused model."


def wrote(config: Mapping[str, Any]) -> bool:
    """Whether a config is mlx-lm's."""
    return "peft_type" not in config and ("lora_parameters" in config or "num_layers" in config)


def read(folder: Path, config: Mapping[str, Any]) -> tuple[LoraSpec, Arrays]:
    """Return the shape and the fp32 arrays by PEFT's names; raise ModelError where it cannot be."""
    path = folder / WEIGHTS
    kind = config.get("fine_tune_type", "lora")
    if kind not in KINDS:
        what = f"mlx-lm's `fine_tune_type` {kind!r} holds whole weights, not an adapter."
        raise ModelError(what, where=str(folder), next_step=FUSE)
    if not path.is_file():
        raise ModelError(f"{WEIGHTS} is missing.", where=str(folder), next_step=EXPORT_AGAIN)
    arrays = _arrays(decode_floats(path.read_bytes(), path, EXPORT_AGAIN), path)
    given = config.get("lora_parameters")
    scale = given.get("scale") if isinstance(given, dict) else None
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not scale > 0:
        what = f"`lora_parameters` must have a `scale` above 0, got {scale!r}."
        raise ModelError(what, where=str(folder), next_step=EXPORT_AGAIN)
    ranks = {name: len(array) for name, array in arrays.items() if ".lora_A." in name}
    if len(set(ranks.values())) != 1:
        what = f"the matrices must have one rank, got {sorted(set(ranks.values()))}."
        raise ModelError(what, where=str(path), next_step=EXPORT_AGAIN)
    rank = next(iter(ranks.values()))
    targets = tuple(name.partition(".lora_A.")[0] for name in ranks)
    return _spec(rank, scale, targets, dora=kind == "dora"), arrays


def _spec(rank: int, scale: float, targets: tuple[str, ...], *, dora: bool) -> LoraSpec:
    paths = tuple(target.removeprefix("base_model.model.") for target in targets)
    return LoraSpec(rank, scale * rank, tuple(sorted(paths)), dora=dora)


def _arrays(tensors: Mapping[str, Floats], path: Path) -> dict[str, Floats]:
    arrays: dict[str, Floats] = {}
    for name, array in tensors.items():
        layer, _, which = name.removeprefix("language_model.").rpartition(".")
        if which not in ("lora_a", "lora_b", "m") or array.ndim != (1 if which == "m" else 2):
            what = f"{name!r} is not a low-rank matrix of a linear layer."
            raise ModelError(what, where=str(path), next_step=FUSE)
        if names_head(layer):
            what = f"the adapter is on the head or the embedding too ({name}), which no backend"
            raise ModelError(f"{what} here computes.", where=str(path), next_step=FUSE)
        new = magnitude(layer) if which == "m" else parameter(layer, which[-1].upper())
        arrays[new] = np.ascontiguousarray(array.T)
    if not arrays:
        raise ModelError("the file has no tensors.", where=str(path), next_step=EXPORT_AGAIN)
    return arrays
