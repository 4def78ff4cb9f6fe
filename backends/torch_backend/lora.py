"""LoRA matrices in a model: PEFT puts them there and names
them; here they are filled, and applied in fewer kernels.

Left out: dropout, several adapters at once, and merging into the base itself, which drifts.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from torch import Tensor, nn

from offapi import adapter as adapters
from offapi.backend import Arrays, LoraSpec, ModelSpec
from offapi.errors import ModelError, nearest
from offapi.randomness import lora_matrices

NAME = "default"  # PEFT's, of the one adapter
BASE = "Load it on the base model it was trained on."


def forward(layer: Any, x: Tensor) -> Tensor:
    """x W^T + scale (x A^T) B^T, shape (..., out); A
    and B in their own dtype, as PEFT's forward does it.

    Three kernels for PEFT's five: the scale and the sum are part of the product with B.
    """
    if layer.product is not None:
        found: Tensor = layer.product(x)
        return found
    base: Tensor = layer.base_layer(x)
    if layer.disable_adapters:
        return base
    a, b = matrices(layer)
    inner = x.to(a.dtype).flatten(0, -2) @ a.T
    flat = base.to(a.dtype).flatten(0, -2)
    return torch.addmm(flat, inner, b.T, alpha=layer.scaling[NAME]).to(base.dtype).view(base.shape)


def matrices(layer: Any) -> tuple[Any, Any]:
    """A (rank, in) and B (out, rank)."""
    return layer.lora_A[NAME].weight, layer.lora_B[NAME].weight


def adapted(model: nn.Module) -> list[Any]:
    """The layers that have an adapter."""
    return [layer for layer in model.modules() if isinstance(layer, Linear)]


def inject(model: Any, spec: ModelSpec) -> dict[str, nn.Parameter]:
    """Put LoRA layers into `model` and fill them from `spec.adapter`, or from the seed.

    Empty without LoRA.
    """
    shape, arrays = (spec.lora, None) if spec.adapter is None else adapters.read(spec.adapter)
    if shape is None:
        return {}
    if (
        spec.lora is not None
        and spec.lora != shape
        and sorted_shape(spec.lora) != sorted_shape(shape)
    ):
        raise ModelError(
            f"the adapter is {shape}, not {spec.lora}.",
            where=str(spec.adapter),
            next_step="Drop `lora`.",
        )
    linears = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    for target in shape.targets:
        if target not in linears:
            step = nearest(target, linears)
            raise ModelError(
                f"no linear layer {target!r} to adapt.", where=str(spec.path), next_step=step
            )
    alpha: Any = shape.alpha  # PEFT's annotation says int; it divides by the rank all the same
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
    fill(lora, initial(lora, spec.seed, shape) if arrays is None else arrays)
    return lora


def sorted_shape(shape: LoraSpec) -> tuple[int, float, tuple[str, ...]]:
    """Comparable form: the order of targets means nothing."""
    return shape.rank, shape.alpha, tuple(sorted(shape.targets))


def initial(lora: dict[str, nn.Parameter], seed: int, shape: LoraSpec) -> Arrays:
    """The core's initial matrices for every LoRA pair of this model."""
    arrays = {}
    for module in sorted({adapters.module(name) for name in lora}):
        a, b = adapters.parameter(module, "A"), adapters.parameter(module, "B")
        arrays[a], arrays[b] = lora_matrices(
            seed, module, shape.rank, lora[a].shape[1], lora[b].shape[0]
        )
    return arrays


def check_fit(lora: dict[str, nn.Parameter], arrays: Arrays) -> None:
    """Raise ModelError unless the names and shapes of `arrays` are the parameters' own."""
    if lora.keys() != arrays.keys():
        odd = sorted(lora.keys() ^ arrays.keys())
        raise ModelError(
            f"{len(odd)} adapter matrices do not fit this model, such as {odd[0]}.", next_step=BASE
        )
    for name, parameter in lora.items():
        if tuple(parameter.shape) != arrays[name].shape:
            wants, has = tuple(parameter.shape), arrays[name].shape
            raise ModelError(f"{name} has shape {has}, the model wants {wants}.", next_step=BASE)


def fill(lora: dict[str, nn.Parameter], arrays: Arrays) -> None:
    """Copy `arrays` into the parameters; raises what
    `check_fit` raises, before anything is changed.
    """
    check_fit(lora, arrays)
    with torch.no_grad():
        for name, parameter in lora.items():
            parameter.copy_(torch.from_numpy(np.array(arrays[name], dtype=np.float32)))
