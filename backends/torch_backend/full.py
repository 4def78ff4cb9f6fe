"""Training every weight: which they are, and the weights as they were loaded, for the reference.

A weight that two layers share is trained once, under its first name. In bfloat16, where most of a
small step would be lost in rounding, float32 masters are trained, of which the model has rounded
copies. Left out: fewer bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from offapi import adapter as adapters
from offapi.model_spec import ModelSpec


def unfreeze(model: nn.Module, spec: ModelSpec) -> dict[str, nn.Parameter]:
    """Let every weight of `model`, in float32, be trained, and return what is trained by name.

    Raise BackendError for a spec that asks for an adapter too.
    """
    adapters.check_full(spec)
    model.requires_grad_(True)
    if spec.dtype == "float32":
        return weights_of(model)
    dtype = getattr(torch, spec.dtype)
    return {name: _master(weight, dtype) for name, weight in weights_of(model).items()}


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return every weight of `model` by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.is_floating_point()}


def _master(weight: nn.Parameter, dtype: torch.dtype) -> nn.Parameter:
    """Return the float32 weight, which gathers the gradients of `weight`, now in `dtype`."""
    master = nn.Parameter(weight.detach())
    weight.data = weight.detach().to(dtype)

    def gather(rounded: Tensor) -> None:
        gradient, rounded.grad = rounded.grad, None
        if gradient is not None:
            own = gradient.float()
            master.grad = own if master.grad is None else master.grad.add_(own)

    weight.register_post_accumulate_grad_hook(gather)  # type: ignore[no-untyped-call]
    return master


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
