"""An adapter of the tiny model that changes its answers, written without a backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny_llama

from offapi import adapter as adapters
from offapi.model_spec import LoraSpec
from offapi.optimizer import Arrays

RANK = tiny_llama.HIDDEN  # so that A and B of a square layer fit transposed too
TARGETS = ("gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
SIZES = {
    "q_proj": (64, 64),
    "k_proj": (32, 64),
    "v_proj": (32, 64),
    "o_proj": (64, 64),
    "gate_proj": (96, 64),
    "up_proj": (96, 64),
}


def draw_adapter() -> Arrays:
    """Return matrices whose products are about a third of the weights."""
    draw = np.random.default_rng(5)
    arrays: dict[str, np.ndarray] = {}
    for block in range(tiny_llama.LAYERS):
        for target in TARGETS:
            place = "self_attn" if target in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
            layer = f"model.layers.{block}.{place}.{target}"
            outputs, inputs = SIZES[target]
            for matrix, shape in (("A", (RANK, inputs)), ("B", (outputs, RANK))):
                numbers = draw.standard_normal(shape) / RANK**0.5 * 0.2
                arrays[adapters.parameter(layer, matrix)] = numbers.astype(np.float32)
    return arrays


def write_adapter(folder: Path, arrays: Arrays, alpha: float = 2.0 * RANK) -> Path:
    folder.mkdir(parents=True)
    spec = LoraSpec(rank=RANK, alpha=alpha, targets=TARGETS)
    for name, content in adapters.encode(arrays, spec).items():
        (folder / name).write_bytes(content)
    return folder
