"""The adapter merged into a second copy of its weights, for rollouts: 4 products a block, not 21.

Layers that read the same input (queries, keys and values; gate and up) have their copies in one
matrix. Left out: merging into the base's own weights, which drifts, and training through the copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import linear

from . import dora
from .lora import NAME, matrices
from .quantised import float_weight

# a layer -> the first layer that reads the same input
TOGETHER = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}


class Product:
    """x W^T + b of several layers at once, (..., sum of their outputs).

    It is kept until the last layer has taken its columns.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        bases = [layer.base_layer for layer in layers]
        self.layers, self.sizes = layers, [base.out_features for base in bases]
        self.weight = torch.cat([float_weight(base).detach() for base in bases])
        has_bias = bases[0].bias is not None
        self.bias = torch.cat([base.bias.detach() for base in bases]) if has_bias else None
        self.x: Tensor | None = None
        self.parts: Sequence[Tensor] = ()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the adapter as it is now into the weights that the product already has."""
        for layer, weight in zip(self.layers, torch.split(self.weight, self.sizes), strict=True):
            a, b = matrices(layer)
            base = float_weight(layer.base_layer).to(a.dtype)
            whole = torch.addmm(base, b, a, alpha=layer.scaling[NAME])
            factor = dora.factor_of(layer, NAME, layer.scaling[NAME])
            weight.copy_(whole if factor is None else whole * factor[:, None])

    def part(self, at: int, x: Tensor) -> Tensor:
        """Return the columns of layer `at`."""
        if self.x is not x:
            product = linear(x, self.weight, self.bias)
            self.x, self.parts = x, torch.split(product, self.sizes, dim=-1)
        part = self.parts[at]
        if at == len(self.sizes) - 1:
            self.x, self.parts = None, ()
        return part


class Merged:
    """The merged copy of all adapted layers, recomputed from base and adapter by `refresh`.

    In bfloat16 it is rounded, and so are the sampled logprobs.
    """

    def __init__(self, model: nn.Module) -> None:
        self.products = [Product(layers) for layers in by_input(model)]

    def refresh(self) -> None:
        """Copy the adapter as it is now into every product."""
        for product in self.products:
            product.refresh()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model compute with the copy inside the context."""
        try:
            for product in self.products:
                for at, layer in enumerate(product.layers):
                    layer.product = partial(product.part, at)
            yield
        finally:
            for product in self.products:
                for layer in product.layers:
                    layer.product = None


def by_input(model: nn.Module) -> list[list[Any]]:
    """Return the adapted layers, grouped by the input they read."""
    groups: dict[tuple[str, str, bool], list[Any]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            parent, _, own = name.rpartition(".")
            base: Any = layer.base_layer
            key = parent, TOGETHER.get(own, own), base.bias is None
            groups.setdefault(key, []).append(layer)
    return list(groups.values())
