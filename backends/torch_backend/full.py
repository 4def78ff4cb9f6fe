"""Training every weight: which they are, and the weights as they were loaded, for the reference.

A weight that two layers share is trained once, under its first name. Left out: weights in bfloat16
or fewer bits, whose steps would be lost in rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from offapi import adapter as adapters
from offapi.model_spec import ModelSpec


def unfreeze(model: nn.Module, spec: ModelSpec) -> dict[str, nn.Parameter]:
    """Let every weight of `model` be trained, and return them by name.

    Raise BackendError for a spec that asks for an adapter or another dtype too.
    """
    adapters.check_full(spec)
    model.requires_grad_(True)
    return {name: weight for name, weight in model.named_parameters() if weight.is_floating_point()}


def as_loaded(model: Any, trained: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the weights of a `model` read once more, on the devices of `trained`."""
    return {
        name: weight.detach().to(trained[name].device)
        for name, weight in model.named_parameters()
        if name in trained
    }


def norm(trained: dict[str, nn.Parameter]) -> float:
    """Return the Frobenius norm of all weights together."""
    with torch.no_grad():
        squares = [weight.float().square().sum() for weight in trained.values()]
        return float(torch.stack(squares).sum().sqrt())
