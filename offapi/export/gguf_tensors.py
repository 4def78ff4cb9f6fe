"""The tensors of a GGUF file: names, order of rows, and types, one tensor in memory at a time.

Names come from the `gguf` package's own map and blocks from its own quantisers. Left out: the
K-quants and IQ types, which that package can read but not write.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from offapi.episodes import Floats
from offapi.errors import ConfigError, ModelError, nearest
from offapi.models.gguf_architecture import Architecture
from offapi.models.gguf_weights import interleave

Shapes = Mapping[str, tuple[int, ...]]
EMBEDDINGS = ("token_embd.weight", "output.weight")
# Both ends of the network suffer most from few bits; llama.cpp stores them in 6 bits there.
FEW_BITS, FOR_EMBEDDINGS = ("q4_0", "q4_1", "q5_0", "q5_1"), "q8_0"
BITS = {"q8_0": 8, "q5_1": 5, "q5_0": 5, "q4_1": 4, "q4_0": 4}  # of quantised weights
KINDS = ("f32", "f16", "bf16", *BITS)
MOST_F16 = 65504.0
INSTEAD = "f16"  # for rows that are not a whole number of blocks, as llama.cpp's converter does


@dataclass(frozen=True)
class TensorPlan:
    """One tensor of the file: its name there, its shape, and its type ("f32", "q8_0", ...)."""

    name: str
    shape: tuple[int, ...]
    kind: str
    heads: int = 0  # of q and k of an interleaved architecture, whose rows are reordered
    add: float = 0.0  # to every number: 1 for shifted norms


def check_kind(kind: str) -> None:
    """Raise ConfigError for a type that cannot be written here."""
    if kind in KINDS:
        return
    raise ConfigError(
        f"GGUF type {kind!r} cannot be written; {', '.join(KINDS)} can.",
        where="--quantize",
        next_step=(
            "Export f16, and run llama.cpp's `llama-quantize` on the file."
            if kind.lower().startswith(("q", "iq"))
            else nearest(kind, KINDS)
        ),
    )


def plan_tensors(
    config: Mapping[str, Any], shapes: Shapes, architecture: Architecture, kind: str, where: str
) -> dict[str, TensorPlan]:
    """Return transformers' name -> the tensor in the file, in the order of `shapes`.

    Raise ModelError for a tensor that llama.cpp's architecture does not have.
    """
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    numbers = {name: number for number, name in MODEL_ARCH_NAMES.items()}
    arch: MODEL_ARCH = numbers[architecture.name]
    names = get_tensor_name_map(arch, int(config["num_hidden_layers"]))
    queries = int(config["num_attention_heads"])
    heads = {"q_proj": queries, "k_proj": int(config.get("num_key_value_heads") or queries)}
    plans: dict[str, TensorPlan] = {}
    for name, shape in shapes.items():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ModelError(
                f"tensor {name!r} has no place in llama.cpp's {architecture.name}.",
                where=where,
                next_step="Export it with `--to fused`.",
            )
        turned = heads.get(name.split(".")[-2], 0) if architecture.interleaved else 0
        add = float(architecture.shifted_norms and name.endswith("norm.weight"))
        plans[name] = TensorPlan(target, shape, _kind_of(target, shape, kind), turned, add)
    return plans


def _kind_of(name: str, shape: tuple[int, ...], kind: str) -> str:
    from gguf import GGML_QUANT_SIZES

    if len(shape) < 2:
        return "f32"
    if kind in FEW_BITS and name in EMBEDDINGS:
        kind = FOR_EMBEDDINGS
    block, _ = GGML_QUANT_SIZES[_number(kind)]
    return kind if shape[-1] % block == 0 else INSTEAD


def _number(kind: str) -> Any:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[kind.upper()]


def write_tensors(
    writer: Any, plans: Mapping[str, TensorPlan], tensors: Iterable[tuple[str, Floats]], where: str
) -> None:
    """Write header, metadata and `tensors` to the writer's file; they come in the plans' order.

    Raise ModelError for a tensor that is missing, or too large for its type.
    """
    for plan in plans.values():
        size = stored_bytes(plan)
        writer.add_tensor_info(plan.name, plan.shape, np.dtype("f4"), size, _number(plan.kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    given = iter(tensors)
    for name, plan in plans.items():
        found, tensor = next(given, ("nothing", np.zeros(0, np.float32)))
        if found != name or tensor.shape != plan.shape:
            raise ModelError(
                f"expected the tensor {name!r} of shape {plan.shape}, got {found!r}.", where=where
            )
        writer.write_tensor_data(encode_tensor(tensor, plan, where))


def stored_bytes(plan: TensorPlan) -> int:
    """Return how many bytes the tensor takes in the file."""
    from gguf import GGML_QUANT_SIZES

    block, size = GGML_QUANT_SIZES[_number(plan.kind)]
    return int(math.prod(plan.shape) // block * size)


def encode_tensor(tensor: Floats, plan: TensorPlan, where: str) -> np.ndarray[Any, Any]:
    """Return `tensor` as the file stores it; ModelError for numbers too large for f16."""
    from gguf import quantize

    rows = interleave(tensor, plan.heads) if plan.heads else tensor
    rows = rows + np.float32(plan.add) if plan.add else rows
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    if plan.kind == "f16" and np.abs(rows).max(initial=0.0) > MOST_F16:
        raise ModelError(
            f"tensor {plan.name!r} has numbers too large for f16 (over {MOST_F16:g}).",
            where=where,
            next_step="Use `--quantize bf16` or `--quantize f32`.",
        )
    stored: np.ndarray[Any, Any] = quantize(rows, _number(plan.kind))
    return stored
