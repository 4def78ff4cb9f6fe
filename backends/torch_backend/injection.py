"""LoRA layers put into a model by PEFT, and their first matrices.

Left out: reading adapters (the core), and PEFT's own rules for names, which the core follows.
"""

from __future__ import annotations

import re
from types import MethodType
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from offapi import adapter as adapters
from offapi.model_spec import ModelSpec

from . import dora
from .lora import NAME, fill, forward, linear_layers, shapes, sizes
from .quiet_imports import QUANTISERS, hidden


def inject(model: Any, spec: ModelSpec) -> dict[str, nn.Parameter]:
    """Put LoRA layers into `model`, filled from `spec.adapter` or from the seed.

    Return their parameters by PEFT's names; none without LoRA.
    """
    shape, arrays = adapters.read_requested(spec)
    if shape is None:
        return {}
    linears = sizes(linear_layers(model))
    modules = adapters.resolve(shape, linears, spec.adapter or spec.path)
    own_rank = {path: lora for path, lora in modules.items() if lora.rank != shape.rank}
    config = LoraConfig(
        r=shape.rank,
        target_modules=list(modules),
        rank_pattern={re.escape(path): lora.rank for path, lora in own_rank.items()},
        lora_dropout=0.0,
    )
    with hidden(*QUANTISERS):
        inject_adapter_in_model(config, model)
    for path, lora in modules.items():
        layer = model.get_submodule(path)
        layer.scaling[NAME] = lora.scale
        layer.forward, layer.product = MethodType(forward, layer), None
        if shape.dora:
            dora.add_magnitude(layer, NAME)
    parameters = lora_parameters(model)
    if arrays is None:
        kept = {name: p for name, p in parameters.items() if name.endswith(adapters.MAGNITUDE)}
        lengths = {name: parameter.detach().cpu().numpy() for name, parameter in kept.items()}
        arrays = {**adapters.draw_matrices(shapes(parameters), spec.seed), **lengths}
    adapters.check_fit(arrays, shapes(parameters), str(spec.adapter or spec.path))
    fill(parameters, arrays)
    return parameters


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what is trained by PEFT's names, in fp32."""
    found = {}
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
            short = name.replace(".default.", ".").replace(
                "_magnitude_vector.weight", "_magnitude_vector"
            )
            found[adapters.PREFIX + short] = parameter
    return found
