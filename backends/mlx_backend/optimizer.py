"""AdamW after global-norm clipping, by MLX's own implementation.

MLX's bias correction is off by default, and its step counter is set from ours, so that options may
change from one step to the next. The learning rate comes from the core.
"""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.optimizers
import numpy as np

from offapi.errors import BackendError
from offapi.optimizer import AdamW

from .packed_moments import PackedMoment, floats, pack

Tensors = dict[str, mx.array]
Moments = dict[str, dict[str, mx.array | PackedMoment]]  # name -> {"m": first, "v": second}


def unreached(gradients: Tensors) -> int:
    """Return the number of B matrices, or of whole weights, whose gradient is zero throughout."""
    matrices = [name for name in gradients if ".lora_B." in name] or list(gradients)
    reached = [mx.any(gradients[name] != 0) for name in matrices]
    return len(reached) - int(np.array(mx.stack(reached)).sum())


def step(
    parameters: Tensors, gradients: Tensors, moments: Moments, taken: int, lr: float, options: AdamW
) -> tuple[Tensors, Moments, float]:
    """Take step number `taken` + 1.

    Return new parameters, new moments, and the gradient norm before clipping. Raise BackendError
    when the gradients are missing or their norm is not finite.
    """
    if not gradients:
        raise BackendError(
            "no gradient was accumulated.",
            next_step="Call forward_backward or policy_gradient before optim_step.",
        )
    squares = mx.stack([mx.square(gradient).sum() for gradient in gradients.values()])
    norm = float(np.sqrt(np.array(squares.sum())))
    if not math.isfinite(norm):
        raise BackendError(
            f"the gradient norm must be finite, got {norm}; nothing was changed.",
            next_step="Lower the learning rate, or train in float32.",
        )
    factor = min(1.0, options.max_grad_norm / (norm + 1e-6)) if options.max_grad_norm > 0 else 1.0
    rule = mlx.optimizers.AdamW(
        learning_rate=lr,
        betas=[options.beta1, options.beta2],
        eps=options.eps,
        weight_decay=options.weight_decay,
        bias_correction=True,
    )
    rule.state["step"] = mx.array(taken + 1, mx.uint64)
    updated: Tensors = {}
    after: Moments = {}
    for name, parameter in parameters.items():
        zeros = {"m": mx.zeros_like(parameter), "v": mx.zeros_like(parameter)}
        held = floats(moments.get(name, zeros))
        moved = rule.apply_single(factor * gradients[name], parameter, held)
        updated[name] = moved if lr else parameter  # adding 0 would turn -0.0 into 0.0
        if options.bits == 8:
            mx.eval(updated[name])  # so that one parameter's moments at a time are float32
        after[name] = pack(held) if options.bits == 8 else {**held}
    mx.eval(updated, [floats(each) for each in after.values()] if options.bits != 8 else [])
    return updated, after, norm
