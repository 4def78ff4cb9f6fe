"""SwiGLU with this backend's exponential where MLX's own is slow: a tenth of a forward pass.

mlx-lm's models call this module through their own `swiglu`. Left out: other activations, which stay
as they are.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx_lm.models import activations

from .fast_exp import exp_below, slow_exp

_swiglu = activations.swiglu


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """Return gate * sigmoid(gate) * x (arXiv 2002.05202)."""
    if not slow_exp():
        return _swiglu(gate, x)  # type: ignore[no-any-return]
    result: Any = _fast(gate, x)
    product: mx.array = result[0]
    return product


def install(model: Module) -> None:
    """Let the modules of `model` compute their `swiglu` here."""
    for name in {type(module).__module__ for module in model.modules()}:  # type: ignore[no-untyped-call]
        if getattr(sys.modules[name], "swiglu", None) is _swiglu:
            sys.modules[name].swiglu = swiglu  # type: ignore[attr-defined]


@mx.custom_function
def _fast(gate: mx.array, x: mx.array) -> tuple[mx.array, mx.array]:
    # exp(-|gate|) never overflows.
    decay = exp_below(-mx.abs(gate.astype(mx.float32)), mx.zeros(()))
    return _product(gate, x, decay)


@_fast.vjp
def _fast_vjp(
    primals: tuple[mx.array, mx.array],
    cotangents: tuple[mx.array, mx.array],
    outputs: tuple[mx.array, mx.array],
) -> tuple[mx.array, mx.array]:
    (gate, x), sigmoid = primals, outputs[1]
    d_silu = cotangents[0] * sigmoid
    d_x = d_silu * gate
    return x * (d_silu + d_x - d_x * sigmoid), d_x


@partial(mx.compile, shapeless=True)
def _product(gate: mx.array, x: mx.array, decay: mx.array) -> tuple[mx.array, mx.array]:
    """Return the result, and sigmoid(gate) for the backward pass."""
    sigmoid = (mx.where(gate < 0, decay, 1.0) / (1 + decay)).astype(gate.dtype)
    return gate * sigmoid * x, sigmoid
