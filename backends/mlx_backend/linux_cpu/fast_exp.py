"""exp and log-sum-exp, with MLX's own kernels except where those are slow.

Outside Apple's libraries MLX's CPU kernels take 25 ns per exponential, so softmax rather than the
matrices dominates attention and the vocabulary. There a polynomial takes 6 ns.
"""

from __future__ import annotations

import math
import sys
from functools import partial

import mlx.core as mx

# exp(f ln 2) on |f| <= 1/2 by its Taylor series: the seventh term is below float32's last bit.
_TAYLOR = tuple(math.log(2) ** k / math.factorial(k) for k in range(8))
_ROUND = 12582912.0  # 1.5 * 2^23: adding it leaves the nearest integer in the low mantissa bits
_LOWEST = -87.0  # exp below this is smaller than the smallest normal float32, here 0


def slow_exp() -> bool:
    """Whether the default device is one on which `mx.exp` is scalar code."""
    return bool(sys.platform == "linux" and mx.default_device().type == mx.DeviceType.cpu)


# Fused in three parts, because a compiled function of any shape may not contain a view.
@partial(mx.compile, shapeless=True)
def _fraction(x: mx.array, top: mx.array) -> tuple[mx.array, mx.array]:
    power = mx.maximum(x - top, _LOWEST) * (1 / math.log(2))
    shifted = power + _ROUND
    fraction = power - (shifted - _ROUND)
    value = fraction * _TAYLOR[-1] + _TAYLOR[-2]
    for term in _TAYLOR[-3::-1]:
        value = value * fraction + term
    return value, shifted


@partial(mx.compile, shapeless=True)
def _raise(value: mx.array, shifted: mx.array) -> mx.array:
    return value + (shifted << 23)


@partial(mx.compile, shapeless=True)
def _cut(value: mx.array, shifted: mx.array) -> mx.array:
    return mx.where(shifted <= _ROUND + _LOWEST / math.log(2) + 0.5, 0.0, value)


@mx.custom_function
def _fast_exp(x: mx.array, top: mx.array) -> mx.array:
    value, shifted = _fraction(x, top)
    raised = _raise(mx.view(value, mx.int32), mx.view(shifted, mx.int32))
    return _cut(mx.view(raised, mx.float32), shifted)


@_fast_exp.vjp
def _fast_exp_vjp(
    primals: list[mx.array], cotangent: mx.array, output: mx.array
) -> tuple[mx.array, mx.array]:
    return cotangent * output, mx.zeros_like(primals[1])


def exp_below(x: mx.array, top: mx.array) -> mx.array:
    """Return exp(x - top) of fp32 `x` that is nowhere above `top`; relative error 1e-6.

    `top` is a constant of the gradient.
    """
    top = mx.stop_gradient(top)
    result: mx.array = _fast_exp(x, top) if slow_exp() else mx.exp(x - top)  # type: ignore[assignment]
    return result


def log_sum_exp(x: mx.array) -> mx.array:
    """Return log(sum(exp(x))) over the last axis, which keeps length 1; fp32."""
    top = mx.stop_gradient(x.max(axis=-1, keepdims=True))
    return top + mx.log(exp_below(x, top).sum(axis=-1, keepdims=True))
