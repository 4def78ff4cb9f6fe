"""A frozen linear layer in int8, one bfloat16 scale for each 64 weights of a row.

The product dequantises the weight again in the backward pass, so the graph holds no float copy.
Left out: products of int8 with int8, which round the activations too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

GROUP = 64  # weights that share a scale, as on MLX and in NF4


class Int8Linear(nn.Linear):
    """x W^T + b, where W (out, in) is int8 times scale.

    A weight is off by 1/254 of the largest of its 64, and a little more. One scale for a whole row,
    as LLM.int8 and torchao have, is off by twice as much where columns have outliers.
    """

    scale: Tensor

    def __init__(self, inputs: int, outputs: int, bias: bool, dtype: torch.dtype) -> None:
        super().__init__(inputs, outputs, bias, device="meta", dtype=dtype)
        self.compute_dtype = dtype
        whole = torch.empty(outputs, inputs, dtype=torch.int8, device="meta")
        self.weight = nn.Parameter(whole, requires_grad=False)
        scale = torch.empty(outputs, inputs // GROUP, dtype=torch.bfloat16, device="meta")
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = _Product.apply(x, self.weight, self.scale, self.bias)  # type: ignore[no-untyped-call]
        return product


class _Product(torch.autograd.Function):
    """x W^T + b, which keeps the int8 weights alone for the gradient of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return linear(x, from_int8(weight, scale, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        weight, scale = ctx.saved_tensors
        return gradients[0] @ from_int8(weight, scale, gradients[0].dtype), None, None, None


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 weights (out, in) and bfloat16 scales (out, in / 64) of a float weight."""
    grouped = weight.float().view(len(weight), -1, GROUP)
    scale = (grouped.abs().amax(-1) / 127).bfloat16()
    divisor = torch.where(scale > 0, scale, 1).float()
    rounded = (grouped / divisor[..., None]).round_().clamp_(-127, 127)
    return rounded.flatten(-2).to(torch.int8), scale


def from_int8(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the float weight (out, in) of `to_int8`."""
    grouped = weight.view(len(weight), -1, GROUP).to(dtype)
    return grouped.mul_(scale.to(dtype)[..., None]).view(weight.shape)
