"""DoRA (arXiv 2402.09353): each row of W + scale B A is brought to a trained length.

As in PEFT and mlx-lm, no gradient goes through the length before. Left out: dropout.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module


class DoRALinear(Module):
    """A linear layer with a low-rank term and lengths of its rows; at scale 0, the layer alone.

    It keeps the lengths of the rows until A or B is another array.
    """

    def __init__(self, linear: Any, rank: int, scale: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        outputs, inputs = size(linear)
        self.linear, self.scale = linear, scale
        self.lora_a, self.lora_b = mx.zeros((inputs, rank)), mx.zeros((rank, outputs))
        self.m = lengths(linear)
        self._kept: tuple[mx.array, mx.array, mx.array] | None = None

    def factor(self) -> mx.array:
        """Return by what the rows are multiplied, (out,)."""
        kept = self._kept
        if kept is None or kept[0] is not self.lora_a or kept[1] is not self.lora_b:
            now = lengths(self.linear, self.lora_a, self.scale * self.lora_b)
            kept = self._kept = (self.lora_a, self.lora_b, now)
        return self.m / kept[2]

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.linear(x)
        if not self.scale:
            return y
        z = self.scale * ((x @ self.lora_a) @ self.lora_b)
        return rescale(y + z, self.linear, self.factor()).astype(y.dtype)


def rescale(total: mx.array, linear: Any, factor: mx.array) -> mx.array:
    """Return `total` (..., out), the layer's output before, with its rows' lengths changed.

    The bias does not belong to the rows.
    """
    if "bias" not in linear:
        return total * factor
    bias: mx.array = linear.bias.astype(total.dtype)
    return (total - bias) * factor + bias


def lengths(linear: Any, a: mx.array | None = None, b: mx.array | None = None) -> mx.array:
    """Return the lengths of the rows of W + (A B)^T in float32, (out,), without a gradient."""
    weight = weight_of(linear).astype(mx.float32)
    if a is not None and b is not None:
        weight = weight + b.T @ a.T
    return mx.stop_gradient(mx.linalg.norm(weight, axis=1))


def weight_of(linear: Any) -> mx.array:
    """Return a layer's weight (out, in), unpacked if it is quantised."""
    weight: mx.array = linear.weight
    if not hasattr(linear, "bits"):
        return weight
    unpacked: mx.array = mx.dequantize(
        weight,
        linear.scales,
        linear.get("biases"),
        group_size=linear.group_size,
        bits=linear.bits,
        mode=linear.mode,
    )
    return unpacked


def size(linear: Any) -> tuple[int, int]:
    """Return (out, in) of a layer, whose weight is packed if it is quantised."""
    outputs, inputs = linear.weight.shape
    return outputs, inputs * 32 // getattr(linear, "bits", 32)
