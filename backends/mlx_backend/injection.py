"""LoRA layers put into a model, and their first matrices. Left out: reading adapters (the core)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx.utils import tree_unflatten
from mlx_lm.tuner.lora import LoRALinear

from offapi import adapter
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.optimizer import Arrays

from .dora import DoRALinear, size
from .policy import Policy, shapes, to_peft


def add_lora(
    model: Any, linears: Mapping[str, Any], shape: LoraSpec, spec: ModelSpec
) -> dict[str, Any]:
    """Put a LoRA layer in place of each layer that `shape` means, and return them by path.

    Raise ModelError for a shape that does not fit the model.
    """
    lora = {
        path: _layer(linears[path], each, dora=shape.dora)
        for path, each in adapter.resolve(shape, sizes(linears), spec.adapter or spec.path).items()
    }
    model.update_modules(tree_unflatten(list(lora.items())))
    return lora


def _layer(linear: Any, lora: adapter.ModuleLora, *, dora: bool) -> Any:
    if dora:
        return DoRALinear(linear, lora.rank, lora.scale)
    return LoRALinear.from_base(linear, r=lora.rank, dropout=0.0, scale=lora.scale)


def first_arrays(policy: Policy, seed: int) -> Arrays:
    """Return what a new adapter begins with, by PEFT's names: DoRA's lengths are the base's."""
    lengths = {
        name: array for name, array in policy.parameters().items() if name.endswith("_vector")
    }
    return {**adapter.draw_matrices(shapes(policy), seed), **to_peft(lengths)}


def sizes(linears: Mapping[str, Any]) -> adapter.Linears:
    """Return (out, in) of each layer."""
    return {path: size(linear) for path, linear in linears.items()}
