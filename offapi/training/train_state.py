"""A training state as files and back: PEFT's adapter,
loadable as it lies, and the optimizer's moments beside it.

No pickle anywhere. Both backends write and read the same files, so a run begun on one
can go on on the other. Left out: where the files go and how they get there (`offapi.training.run`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson
from safetensors.numpy import load, save

from offapi import adapter
from offapi.backend import Arrays, LoraSpec, TrainState
from offapi.errors import RunError

OPTIMIZER, PROGRESS = "optimizer.safetensors", "progress.json"
KINDS = ("exp_avg", "exp_avg_sq")


def encode(state: TrainState, shape: LoraSpec, base: str) -> Mapping[str, bytes]:
    """File name -> content of a checkpoint."""
    moments = {
        f"{kind}/{name}": np.ascontiguousarray(array, dtype=np.float32)
        for kind in KINDS
        for name, array in sorted(getattr(state, kind).items())
    }
    return {
        **adapter.encode(state.adapter, shape, base),
        OPTIMIZER: save(moments),
        PROGRESS: orjson.dumps({"optimizer_steps": state.step}),
    }


def read(folder: Path) -> TrainState:
    """The state in checkpoint `folder`. Raises RunError or ModelError when it is damaged."""
    _, matrices = adapter.read(folder)
    try:
        moments: Arrays = load((folder / OPTIMIZER).read_bytes())
        step = int(orjson.loads((folder / PROGRESS).read_bytes())["optimizer_steps"])
    except Exception as error:
        raise RunError(
            f"damaged checkpoint: {error}", where=str(folder), next_step="Resume from an older one."
        ) from error
    held = {
        kind: {
            name.split("/", 1)[1]: a for name, a in moments.items() if name.startswith(f"{kind}/")
        }
        for kind in KINDS
    }
    return TrainState(matrices, held["exp_avg"], held["exp_avg_sq"], step)
