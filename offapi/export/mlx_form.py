"""`--to mlx`: for mlx-lm, a fused model and its own kind of adapter, or a fused model quantised.

mlx-lm's adapters differ from PEFT's in three ways: A and B are transposed, `scale` is alpha / rank,
and layers are named by `keys` inside a block. Left out: other group sizes than mlx-lm's 64.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import orjson
from safetensors.numpy import save_file

from offapi import adapter as adapters
from offapi.backend import require_installed
from offapi.errors import ConfigError, ModelError
from offapi.export.adapter_form import require_adapter
from offapi.export.fused_form import OPEN_MLX, fused_files, write_fused
from offapi.export.part import ExportedPart
from offapi.export.source import ExportSource
from offapi.model_spec import LoraSpec
from offapi.optimizer import Arrays

BITS = {"4": 4, "8": 8}
SCALE_BITS = 1.0  # a weight's part of its group's scale and bias, 2 * 32 / 64
FUSED = ".fused"
ADAPTER = "adapter"  # the folder, inside the exported one, of mlx-lm's kind of adapter
WEIGHTS = "adapters.safetensors"
TOOLS = "offapi.backends.mlx_backend.exported"
OPEN_ADAPTER = """\
from mlx_lm import load

model, tokenizer = load("BASE", adapter_path="OUT/adapter")"""


def bytes_on_disk(source: ExportSource, quantize: str | None) -> int:
    """Return the size while it is written. Raise ConfigError, ModelError or BackendError."""
    require_installed("mlx")
    source.require_opener("mlx", "mlx")
    adapter = source.adapter and adapters.weights_file(source.adapter).stat().st_size
    if quantize is None and source.quantised:
        require_adapter(source)
        return adapter or 0
    source.require_plain()
    fused = sum(path.stat().st_size for path in fused_files(source))
    if quantize is None:
        return fused + (adapter or 0)
    return fused + int(source.parameters * (_bits(quantize) + SCALE_BITS) / 8)


def write_form(
    source: ExportSource, folder: Path, quantize: str | None
) -> tuple[ExportedPart, ...]:
    """Write the parts: of a base that is stored quantised the adapter alone."""
    if quantize is not None:
        return _write_quantised(source, folder, _bits(quantize))
    parts = []
    if not source.quantised:
        write_fused(source, folder)
        parts.append(_part("fused model", "open_fused", OPEN_MLX, source.dtype))
    if source.adapter is not None:
        layers = int(source.config["num_hidden_layers"])
        write_adapter(*adapters.read(source.adapter), folder / ADAPTER, layers)
        parts.append(_part("mlx-lm adapter", "open_adapter", OPEN_ADAPTER, "float32", ADAPTER))
    return tuple(parts)


def write_adapter(shape: LoraSpec, arrays: Arrays, folder: Path, layers: int) -> None:
    """Write an adapter in mlx-lm's layout. `layers` is the number of the model's blocks.

    mlx-lm knows one rank and one scale: smaller ranks are filled up with zeros, and another scale
    goes into B.
    """
    folder.mkdir(mode=0o700)
    modules = adapters.resolve_arrays(shape, arrays, folder)
    rank = max(lora.rank for lora in modules.values())
    tensors: dict[str, np.ndarray] = {}
    for layer, lora in modules.items():
        a, b = (arrays[adapters.parameter(layer, matrix)] for matrix in "AB")
        missing = (0, rank - lora.rank), (0, 0)
        tensors[f"{layer}.lora_a"] = np.ascontiguousarray(np.pad(a, missing).T)
        factor = np.float32(lora.scale / shape.scale)
        tensors[f"{layer}.lora_b"] = np.ascontiguousarray(np.pad((factor * b).T, missing))
        if shape.dora:
            tensors[f"{layer}.m"] = arrays[adapters.magnitude(layer)]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "mlx"})
    keys = sorted({_key(layer) for layer in modules})
    lora_parameters = {"rank": rank, "scale": shape.scale, "dropout": 0.0, "keys": keys}
    kind = "dora" if shape.dora else "lora"
    config = {"fine_tune_type": kind, "num_layers": layers, "lora_parameters": lora_parameters}
    (folder / adapters.CONFIG).write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))


def _key(layer: str) -> str:
    """Return a layer's name inside its block: `self_attn.q_proj` of `model.layers.3.…`."""
    block, found, rest = layer.partition(".layers.")
    number, _, key = rest.partition(".")
    if not found or not number.isdigit() or not key:
        what = f"mlx-lm cannot name the adapted layer {layer!r}, which is in no block."
        raise ModelError(what, next_step=f"Export it --to fused ({block!r} is not `model.layers`).")
    return key


def _write_quantised(source: ExportSource, folder: Path, bits: int) -> tuple[ExportedPart, ...]:
    """Write the model quantised, and on the way not, so that a mistake in merging shows."""
    fused = folder / FUSED
    fused.mkdir(mode=0o700)
    write_fused(source, fused)
    import_module(TOOLS).write_quantised(fused, folder, bits)
    for path in fused.iterdir():
        if not path.name.startswith(("model", "config.json")):
            shutil.copyfile(path, folder / path.name)
    before = _part("fused model", "open_fused", OPEN_MLX, source.dtype, FUSED)
    after = _part(f"fused model in {bits} bits", "open_fused", OPEN_MLX, source.dtype)
    return replace(before, temporary=True), replace(after, bits=bits)


def _part(what: str, opener: str, how: str, dtype: str, folder: str = ".") -> ExportedPart:
    return ExportedPart(
        what=what,
        tool="mlx-lm",
        opener=f"{TOOLS}:{opener}",
        how_to_open=how,
        dtype=dtype,
        folder=folder,
    )


def _bits(quantize: str) -> int:
    if quantize not in BITS:
        what = f"--quantize must be {' or '.join(BITS)} with --to mlx, got {quantize!r}."
        raise ConfigError(what, next_step="Choose one of them, or leave it out.")
    return BITS[quantize]
