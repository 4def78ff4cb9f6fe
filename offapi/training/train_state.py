"""A training state as files: PEFT's adapter, loadable as it is, and the optimizer's moments.

There are no pickles. Both backends write and read the same files, so that a run begun on one can be
resumed on the other. Left out: where the files are and how they get there (`offapi.training.run`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson
from safetensors.numpy import load, save

from offapi import adapter
from offapi.episodes import Floats
from offapi.errors import RunError
from offapi.model_spec import LoraSpec
from offapi.optimizer import Arrays, TrainState
from offapi.training import whole_model

OPTIMIZER, PROGRESS = "optimizer.safetensors", "progress.json"
KINDS = ("exp_avg", "exp_avg_sq")


def encode(state: TrainState, shape: LoraSpec | None, base: adapter.Base) -> Mapping[str, bytes]:
    """Return the files of a checkpoint: name -> content; without a shape, of whole weights."""
    if shape is None:
        trained: Mapping[str, bytes] = {whole_model.WEIGHTS: whole_model.encode(state.adapter)}
    else:
        trained = adapter.encode(state.adapter, shape, base)
    moments = {
        f"{kind}/{name}": np.ascontiguousarray(array, dtype=np.float32)
        for kind in KINDS
        for name, array in sorted(getattr(state, kind).items())
    }
    return {
        **trained,
        OPTIMIZER: save(moments),
        PROGRESS: orjson.dumps({"optimizer_steps": state.step}),
    }


def read(folder: Path) -> TrainState:
    """Return the state in checkpoint `folder`; raise RunError or ModelError when it is damaged."""
    whole = (folder / whole_model.WEIGHTS).is_file()
    matrices = whole_model.read(folder) if whole else adapter.read(folder)[1]
    try:
        moments: Arrays = load((folder / OPTIMIZER).read_bytes())
        step = int(orjson.loads((folder / PROGRESS).read_bytes())["optimizer_steps"])
    except Exception as error:
        raise RunError(
            f"the checkpoint is damaged: {error}",
            where=str(folder),
            next_step="Resume from an older checkpoint.",
        ) from error
    by_kind: dict[str, dict[str, Floats]] = {kind: {} for kind in KINDS}
    for name, array in moments.items():
        kind, _, tensor = name.partition("/")
        if kind in by_kind:
            by_kind[kind][tensor] = array
    return TrainState(matrices, by_kind["exp_avg"], by_kind["exp_avg_sq"], step)
