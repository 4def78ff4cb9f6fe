"""The adapter merged into a second copy of the weights it
adapts, for rollouts: 4 products a block instead of 21.

Layers that read the same input (queries, keys and values; gate and up) have their copies in one
matrix. Left out: merging into the base's own weights, which drifts, and training through the copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn.functional import linear

from .lora import NAME, matrices

TOGETHER = {
    "k_proj": "q_proj",
    "v_proj": "q_proj",
    "up_proj": "gate_proj",
}  # a layer, and the first to read its input


class Product:
    """x W^T + b of several layers at once, (..., sum of their
    outputs), kept until the last has taken its columns.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        bases = [layer.base_layer for layer in layers]
        self.layers, self.sizes = layers, [base.weight.shape[0] for base in bases]
        self.weight = torch.cat([base.weight.detach() for base in bases])
        self.bias = (
            None if bases[0].bias is None else torch.cat([base.bias.detach() for base in bases])
        )
        self.x: Tensor | None = None
        self.parts: Sequence[Tensor] = ()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the adapter as it is now, at the addresses the copy already has."""
        for layer, weight in zip(self.layers, torch.split(self.weight, self.sizes), strict=True):
            a, b = matrices(layer)
            weight.copy_(
                torch.addmm(layer.base_layer.weight.to(a.dtype), b, a, alpha=layer.scaling[NAME])
            )

    def part(self, at: int, x: Tensor) -> Tensor:
        """The columns of layer `at`."""
        if self.x is not x:
            self.x, self.parts = (
                x,
                torch.split(linear(x, self.weight, self.bias), self.sizes, dim=-1),
            )
        found = self.parts[at]
        if at == len(self.sizes) - 1:
            self.x, self.parts = None, ()
        return found


class Merged:
    """Computed anew from base and adapter by `refresh`.

    In bfloat16 it is rounded, and so are the logprobs sampled.
    """

    def __init__(self, model: nn.Module) -> None:
        self.products = [Product(layers) for layers in by_input(model)]

    def refresh(self) -> None:
        """Take over the adapter as it is now."""
        for product in self.products:
            product.refresh()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model computes with the copy."""
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
    """The layers that have an adapter, those together that read the same input."""
    found: dict[tuple[str, str, bool], list[Any]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, Linear):
            parent, _, own = name.rpartition(".")
            base: Any = layer.base_layer
            found.setdefault((parent, TOGETHER.get(own, own), base.bias is None), []).append(layer)
    return list(found.values())
