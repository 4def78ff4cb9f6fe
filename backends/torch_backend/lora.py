"""LoRA matrices in a model: PEFT adds and names them; this module fills and applies them.

Further adapters are applied to the rows that name them, the rows of one adapter together. Left out:
dropout, training further adapters, and merging into the base itself, which drifts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from torch import Tensor, nn

from offapi import adapter as adapters
from offapi.backend import Arrays, LoraSpec, ModelSpec

from .quiet_imports import QUANTISERS, hidden

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
    linears = linear_layers(model)
    adapters.check_targets(shape, (name.rsplit(".", 1)[-1] for name in linears), spec.path)
    alpha: Any = shape.alpha  # PEFT annotates it as int, but divides it by the rank
    config = LoraConfig(
        r=shape.rank, lora_alpha=alpha, target_modules=list(shape.targets), lora_dropout=0.0
    )
    with hidden(*QUANTISERS):
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


@dataclass(frozen=True, eq=False)
class Adapter:
    """The matrices A (rank, in) and B (out, rank) by their layer's path; none: the base alone."""

    pairs: Mapping[str, tuple[Tensor, Tensor]]
    scale: float = 0.0


Places = Mapping[str | None, Tensor | None]  # adapter -> the places of its tokens; None: all


class Adapters:
    """The adapters of one engine by name; None names the policy's own, whose matrices may train.

    Raise ModelError for a folder that is damaged or does not fit.
    """

    def __init__(self, model: nn.Module, spec: ModelSpec, named: Mapping[str, Path | None]) -> None:
        self.model, self.spec = model, spec
        self.named: dict[str, Adapter] = {}
        self.layers: dict[str, Any] = {}  # those that an adapter is on, by path
        for name, folder in named.items():
            self.load(name, folder)

    def load(self, name: str, folder: Path | None) -> None:
        """Add the adapter of a PEFT folder, or the base alone, by `name`."""
        linears = linear_layers(self.model)
        self.named[name] = load_adapter(folder, linears, self.spec)
        targets = self.named[name].pairs
        self.layers |= {
            path: layer
            for path, layer in linears.items()
            if path in targets or isinstance(layer, Linear)
        }

    @property
    def names(self) -> set[str | None]:
        """What a row may name."""
        return {None, *self.named}

    @contextmanager
    def applied(self, places: Places) -> Iterator[None]:
        """Compute with the adapters at their `places` of the packed tokens inside the context."""
        before = {path: vars(layer).get("forward") for path, layer in self.layers.items()}
        try:
            for path, layer in self.layers.items():
                layer.forward = partial(self._forward, path, layer, places)
            yield
        finally:
            for path, layer in self.layers.items():
                if before[path] is None:
                    del layer.forward
                else:
                    layer.forward = before[path]

    def _forward(self, path: str, layer: Any, places: Places, x: Tensor) -> Tensor:
        """Return x W^T with each token's own low-rank term, shape (..., out)."""
        own = isinstance(layer, Linear)
        base: Tensor = layer.base_layer(x) if own else type(layer).forward(layer, x)
        flat_x, flat = x.flatten(0, -2), base.float().flatten(0, -2)
        for name, places_L in places.items():
            if name is None:
                pair, scale = (matrices(layer), layer.scaling[NAME]) if own else (None, 0.0)
            else:
                pair, scale = self.named[name].pairs.get(path), self.named[name].scale
            if pair is None:
                continue
            inner = flat_x if places_L is None else flat_x.index_select(0, places_L)
            term = inner.to(pair[0].dtype) @ pair[0].T @ pair[1].T * scale
            flat = flat + term if places_L is None else flat.index_add(0, places_L, term)
        return flat.to(base.dtype).view(base.shape)


def linear_layers(model: Any) -> dict[str, Any]:
    """Return the linear layers that may have an adapter, by path; one that has it as PEFT's layer.

    The head may not: logits are computed from its weight alone.
    """
    others = {id(layer.base_layer) for layer in adapted(model)} | {
        id(model.get_output_embeddings())
    }
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Linear)
        or (isinstance(module, nn.Linear) and id(module) not in others and ".lora_" not in name)
    }


def load_adapter(folder: Path | None, linears: Mapping[str, Any], spec: ModelSpec) -> Adapter:
    """Read a PEFT folder for the model of `spec`; raise ModelError if it does not fit."""
    if folder is None:
        return Adapter({})
    asked = ModelSpec(path=spec.path, adapter=folder, dtype=spec.dtype)
    shape, arrays = adapters.read_requested(asked)
    assert shape is not None
    assert arrays is not None
    adapters.check_targets(shape, (path.rsplit(".", 1)[-1] for path in linears), spec.path)
    layers = {path: linears[path] for path in linears if path.rsplit(".", 1)[-1] in shape.targets}
    adapters.check_fit(arrays, _shapes_of(layers, shape), str(folder))
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise adapters.not_finite(name, asked)
    return Adapter({path: _pair(path, arrays, layers[path]) for path in layers}, shape.scale)


def _shapes_of(layers: Mapping[str, Any], shape: LoraSpec) -> adapters.Shapes:
    """Return the shapes of an adapter of `shape` on these layers."""
    fitting: dict[str, tuple[int, ...]] = {}
    for path, layer in layers.items():
        fitting[adapters.parameter(path, "A")] = (shape.rank, layer.in_features)
        fitting[adapters.parameter(path, "B")] = (layer.out_features, shape.rank)
    return fitting


def _pair(path: str, arrays: Arrays, layer: Any) -> tuple[Tensor, Tensor]:
    device = next(layer.parameters()).device
    a, b = (np.array(arrays[adapters.parameter(path, matrix)], np.float32) for matrix in "AB")
    return torch.from_numpy(a).to(device), torch.from_numpy(b).to(device)
