"""LoRA matrices in a model: PEFT adds and names them; this module fills and applies them.

Left out: dropout, several adapters at once, and merging into the base itself, which drifts.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from torch import Tensor, nn

from offapi import adapter as adapters
from offapi.backend import Arrays, ModelSpec

NAME = "default"  # PEFT's name of the only adapter


def forward(layer: Any, x: Tensor) -> Tensor:
    """Return x W^T + scale (x A^T) B^T, shape (..., out); A and B in their own dtype, as in PEFT.

    It takes three kernels where PEFT takes five: scale and sum are part of the product with B.
    """
    if layer.product is not None:
        output: Tensor = layer.product(x)
        return output
    base: Tensor = layer.base_layer(x)
    if layer.disable_adapters:
        return base
    a, b = matrices(layer)
    inner = x.to(a.dtype).flatten(0, -2) @ a.T
    flat = base.to(a.dtype).flatten(0, -2)
    return torch.addmm(flat, inner, b.T, alpha=layer.scaling[NAME]).to(base.dtype).view(base.shape)


def matrices(layer: Any) -> tuple[Any, Any]:
    """Return A (rank, in) and B (out, rank)."""
    return layer.lora_A[NAME].weight, layer.lora_B[NAME].weight


def adapted(model: nn.Module) -> list[Any]:
    """Return the layers that have an adapter."""
    return [layer for layer in model.modules() if isinstance(layer, Linear)]


def inject(model: Any, spec: ModelSpec) -> tuple[dict[str, nn.Parameter], float]:
    """Put LoRA layers into `model`, filled from `spec.adapter` or from the seed.

    Return their parameters by PEFT's names, and their scale (alpha / rank); empty and 0 without
    LoRA.
    """
    shape, arrays = adapters.read_requested(spec)
    if shape is None:
        return {}, 0.0
    linears = (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    adapters.check_targets(shape, (name.rsplit(".", 1)[-1] for name in linears), spec.path)
    alpha: Any = shape.alpha  # PEFT annotates it as int, but divides it by the rank
    config = LoraConfig(
        r=shape.rank, lora_alpha=alpha, target_modules=list(shape.targets), lora_dropout=0.0
    )
    inject_adapter_in_model(config, model)
    lora = {
        adapters.PREFIX + name.replace(".default.", "."): parameter
        for name, parameter in model.named_parameters()
        if ".lora_" in name
    }
    for parameter in lora.values():
        parameter.data = parameter.data.float()
    for layer in adapted(model):
        layer.forward, layer.product = MethodType(forward, layer), None
    arrays = adapters.draw_matrices(shapes(lora), spec.seed) if arrays is None else arrays
    adapters.check_fit(arrays, shapes(lora), str(spec.adapter or spec.path))
    fill(lora, arrays)
    return lora, shape.scale


def shapes(lora: Mapping[str, nn.Parameter]) -> adapters.Shapes:
    """Return the shape of each matrix."""
    return {name: tuple(parameter.shape) for name, parameter in lora.items()}


def fill(lora: Mapping[str, nn.Parameter], arrays: Arrays) -> None:
    """Copy `arrays`, which fit, into the parameters."""
    with torch.no_grad():
        for name, parameter in lora.items():
            parameter.copy_(torch.from_numpy(np.array(arrays[name], dtype=np.float32)))
