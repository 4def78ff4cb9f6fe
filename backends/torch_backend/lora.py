"""LoRA matrices in a model, which PEFT adds and names (`injection`): this module applies them.

Further adapters are applied to the rows that name them, the rows of one adapter together. Left out:
dropout, training further adapters, and merging into the base itself, which drifts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from offapi import adapter as adapters
from offapi.model_spec import ModelSpec
from offapi.optimizer import Arrays

from . import dora

NAME = "default"  # PEFT's name of the only adapter


def forward(layer: Any, x: Tensor) -> Tensor:
    """Return x W^T + scale (x A^T) B^T, shape (..., out); A and B in their own dtype, as in PEFT.

    It takes three kernels where PEFT takes five: scale and sum are part of the product with B. With
    DoRA, rows have their trained lengths.
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
    scale = layer.scaling[NAME]
    total = torch.addmm(flat, inner, b.T, alpha=scale)
    factor = dora.factor_of(layer, NAME, scale)
    if factor is not None:
        total = dora.rescale(total, layer.base_layer, factor)
    return total.to(base.dtype).view(base.shape)


def matrices(layer: Any) -> tuple[Any, Any]:
    """Return A (rank, in) and B (out, rank)."""
    return layer.lora_A[NAME].weight, layer.lora_B[NAME].weight


def adapted(model: nn.Module) -> list[Any]:
    """Return the layers that have an adapter."""
    return [layer for layer in model.modules() if isinstance(layer, LoraLayer)]


def shapes(lora: Mapping[str, nn.Parameter]) -> adapters.Shapes:
    """Return the shape of each matrix."""
    return {name: tuple(parameter.shape) for name, parameter in lora.items()}


def fill(lora: Mapping[str, nn.Parameter], arrays: Arrays) -> None:
    """Copy `arrays`, which fit, into the parameters."""
    with torch.no_grad():
        for name, parameter in lora.items():
            parameter.copy_(torch.from_numpy(np.array(arrays[name], dtype=np.float32)))


@dataclass(frozen=True, eq=False)
class Term:
    """What an adapter adds to a layer: A (rank, in), B (out, rank), and with DoRA the factor."""

    a: Tensor
    b: Tensor
    scale: float
    factor: Tensor | None = None  # of the layer's rows, (out,)

    def added(self, x: Tensor, base: Tensor, base_layer: Any) -> Tensor:
        """Return what comes to `base` (L, out) for `x` (L, in)."""
        term = x.to(self.a.dtype) @ self.a.T @ self.b.T * self.scale
        if self.factor is None:
            return term
        return dora.rescale(base + term, base_layer, self.factor) - base


@dataclass(frozen=True, eq=False)
class Adapter:
    """What is added to each layer, by its path; nothing: the base alone."""

    terms: Mapping[str, Term]


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
        targets = self.named[name].terms
        self.layers |= {
            path: layer
            for path, layer in linears.items()
            if path in targets or isinstance(layer, LoraLayer)
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
        own = isinstance(layer, LoraLayer)
        base_layer = layer.base_layer if own else layer
        base: Tensor = layer.base_layer(x) if own else type(layer).forward(layer, x)
        flat_x, first = x.flatten(0, -2), base.float().flatten(0, -2)
        flat = first
        for name, places_L in places.items():
            if name is None:
                term = _own_term(layer) if own else None
            else:
                term = self.named[name].terms.get(path)
            if term is None:
                continue
            if places_L is None:
                flat = flat + term.added(flat_x, first, base_layer)
            else:
                rows = flat_x.index_select(0, places_L), first.index_select(0, places_L)
                flat = flat.index_add(0, places_L, term.added(*rows, base_layer))
        return flat.to(base.dtype).view(base.shape)


def _own_term(layer: Any) -> Term:
    scale = layer.scaling[NAME]
    return Term(*matrices(layer), scale, dora.factor_of(layer, NAME, scale))


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
        if isinstance(module, LoraLayer)
        or (isinstance(module, nn.Linear) and id(module) not in others and ".lora_" not in name)
    }


def sizes(linears: Mapping[str, Any]) -> adapters.Linears:
    """Return (out, in) of each layer."""
    return {path: (layer.out_features, layer.in_features) for path, layer in linears.items()}


def load_adapter(folder: Path | None, linears: Mapping[str, Any], spec: ModelSpec) -> Adapter:
    """Read a PEFT folder for the model of `spec`; raise ModelError if it does not fit."""
    if folder is None:
        return Adapter({})
    asked = ModelSpec(path=spec.path, adapter=folder, dtype=spec.dtype)
    shape, arrays = adapters.read_requested(asked)
    assert shape is not None
    assert arrays is not None
    known = sizes(linears)
    modules = adapters.resolve(shape, known, folder)
    adapters.check_fit(arrays, adapters.shapes_of(modules, known, dora=shape.dora), str(folder))
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise adapters.not_finite(name, asked)
    terms = {path: _term(path, arrays, linears[path], lora) for path, lora in modules.items()}
    return Adapter(terms)


def _term(path: str, arrays: Arrays, layer: Any, lora: adapters.ModuleLora) -> Term:
    base_layer: Any = layer.base_layer if isinstance(layer, LoraLayer) else layer
    device = base_layer.weight.device

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(np.array(arrays[name], np.float32)).to(device)

    a, b = (tensor(adapters.parameter(path, matrix)) for matrix in "AB")
    if (name := adapters.magnitude(path)) not in arrays:
        return Term(a, b, lora.scale)
    return Term(a, b, lora.scale, tensor(name) / dora.lengths(base_layer, a, b, lora.scale))
