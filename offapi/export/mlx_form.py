"""`--to mlx`: for mlx-lm, a fused model and its own kind of adapter, or a fused model quantised.

Of a run on a base in few bits, the base is written in those next to the adapter, and not fused.
mlx-lm's adapters differ from PEFT's in three ways: A and B are transposed, `scale` is alpha / rank,
and layers are named by `keys` inside a block. Left out: other group sizes than mlx-lm's 64.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
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
from offapi.export.fused_form import OPEN_MLX, fused_files, write_fused, write_stop_ids
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
BASE = "base"  # the folder of a base in the training's bits
OPEN_ADAPTER = """\
from mlx_lm import load

model, tokenizer = load("BASE", adapter_path="OUT/adapter")"""
OPEN_BOTH = OPEN_ADAPTER.replace("BASE", f"OUT/{BASE}")
MLX_PACKED = "mlx"  # the backend whose bits mlx-lm has too
TORCH_KINDS = {4: "NF4", 8: "int8"}


def bytes_on_disk(source: ExportSource, quantize: str | None) -> int:
    """Return the size while it is written. Raise ConfigError, ModelError or BackendError."""
    require_installed("mlx")
    source.require_opener("mlx", "mlx")
    adapter = source.adapter and adapters.weights_file(source.adapter).stat().st_size
    if quantize is None and source.quantised:
        require_adapter(source)
        return adapter or 0
    source.require_plain()
    if (bits := source.answering.quantize) is not None:
        return int(source.parameters * (bits + SCALE_BITS) / 8) + (adapter or 0)
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
    if source.answering.quantize is not None:
        return _write_as_trained(source, folder, source.answering.quantize)
    parts = []
    if not source.quantised:
        write_fused(source, folder)
        parts.append(_part("fused model", "open_fused", OPEN_MLX, source.dtype))
    if source.adapter is not None:
        _write_adapter_of(source, folder)
        parts.append(_part("mlx-lm adapter", "open_adapter", OPEN_ADAPTER, "float32", ADAPTER))
    return tuple(parts)


def base_sentence(bits: int, backend: str) -> str:
    """Return what a base in the bits of its training is to mlx-lm."""
    if backend == MLX_PACKED:
        return f"The base is written in {bits} bits, exactly as it was for the training."
    return (
        f"The run was trained on torch's {TORCH_KINDS[bits]}, which MLX does not have. The base is"
        f" written in MLX's {bits} bits, and the differences below are what that costs."
    )


def _write_adapter_of(source: ExportSource, folder: Path) -> None:
    layers = int(source.config["num_hidden_layers"])
    write_adapter(*adapters.read(require_adapter(source)), folder / ADAPTER, layers)


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
    _copy_texts(fused.iterdir(), folder)
    before = _part("fused model", "open_fused", OPEN_MLX, source.dtype, FUSED)
    after = _part(f"fused model in {bits} bits", "open_fused", OPEN_MLX, source.dtype)
    return replace(before, temporary=True), replace(after, bits=bits)


def _write_as_trained(source: ExportSource, folder: Path, bits: int) -> tuple[ExportedPart, ...]:
    """Write the base packed as MLX packs it, and next to it the adapter.

    torch packs what is inside its layers alone, so that the rest stays float here too.
    """
    exact = source.trained.backend == MLX_PACKED
    base, dtype = folder / BASE, source.trained_dtype
    base.mkdir(mode=0o700)
    import_module(TOOLS).write_base(source.base, base, bits, dtype, whole=exact)
    _copy_texts(fused_files(source), base)
    write_stop_ids(source, base)
    _write_adapter_of(source, folder)
    part = _part(f"base in {bits} bits with the adapter", "open_both", OPEN_BOTH, dtype)
    return (part if exact else replace(part, bits=bits),)


def _copy_texts(paths: Iterable[Path], folder: Path) -> None:
    """Copy a model's files but for weights and config.json."""
    for path in paths:
        if not path.name.startswith(("model", "config.json")):
            shutil.copyfile(path, folder / path.name)


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
