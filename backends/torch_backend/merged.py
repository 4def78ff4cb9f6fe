"""The adapter merged into a second copy of the weights it adapts, for rollouts: a third of the kernels are saved.

Left out: merging into the base's own weights, which drifts, and training through the copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .lora import NAME, adapted, matrices


class Merged:
    """Computed anew from base and adapter by `refresh`. In bfloat16 it is rounded, and so are the logprobs sampled."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = adapted(model)
        self.weights = [torch.empty_like(layer.base_layer.weight) for layer in self.layers]

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the adapter as it is now, at the addresses the copy already has."""
        for layer, weight in zip(self.layers, self.weights, strict=True):
            a, b = matrices(layer)
            weight.copy_(torch.addmm(layer.base_layer.weight.to(a.dtype), b, a, alpha=layer.scaling[NAME]))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model computes with the copy."""
        try:
            for layer, weight in zip(self.layers, self.weights, strict=True):
                layer.merged_weight = weight
            yield
        finally:
            for layer in self.layers:
                layer.merged_weight = None
