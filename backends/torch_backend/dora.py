"""DoRA (arXiv 2402.09353): each row of W + scale B A is brought to a trained length.

As in PEFT, no gradient goes through the length before. Left out: dropout.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.dora import DoraLinearLayer
from torch import Tensor, nn

from .quantised import float_weight


def add_magnitude(layer: Any, name: str) -> None:
    """Give a PEFT layer lengths to train, where PEFT keeps them: the base's own at first.

    PEFT itself would look for the packed weights' library.
    """
    kept: Any = DoraLinearLayer(fan_in_fan_out=False)  # type: ignore[no-untyped-call]
    kept.weight = nn.Parameter(lengths(layer.base_layer))
    layer.lora_magnitude_vector[name] = kept


def magnitude(layer: Any, name: str) -> Tensor | None:
    """Return the trained lengths of the rows of a PEFT layer, (out,); None without DoRA."""
    vectors = layer.lora_magnitude_vector
    wanted: Tensor | None = vectors[name].weight if name in vectors else None
    return wanted


def rescale(total: Tensor, base_layer: Any, factor: Tensor) -> Tensor:
    """Return `total` (..., out), the layer's output before, with its rows' lengths changed.

    The bias does not belong to the rows.
    """
    if base_layer.bias is None:
        return total * factor
    bias: Tensor = base_layer.bias.to(total.dtype)
    return (total - bias) * factor + bias


def factor_of(layer: Any, name: str, scale: float) -> Tensor | None:
    """Return by what the rows of a PEFT layer are multiplied, (out,); None without DoRA.

    The lengths are kept until A or B changes, except in a CUDA graph, which would keep them for
    ever.
    """
    wanted = magnitude(layer, name)
    if wanted is None:
        return None
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    key = (a.data_ptr(), a._version, b.data_ptr(), b._version)
    kept = vars(layer).get("kept_lengths")
    capturing = a.is_cuda and torch.cuda.is_current_stream_capturing()
    if capturing or kept is None or kept[0] != key:
        kept = key, lengths(layer.base_layer, a, b, scale)
    if not capturing:
        vars(layer)["kept_lengths"] = kept
    factor: Tensor = wanted / kept[1]
    return factor


def lengths(
    base_layer: Any, a: Tensor | None = None, b: Tensor | None = None, scale: float = 0.0
) -> Tensor:
    """Return the lengths of the rows of W + scale B A in float32, (out,), without a gradient."""
    # A tensor made in inference mode could not take part in training later.
    with torch.inference_mode(False), torch.no_grad():
        weight = float_weight(base_layer).detach().float()
        if a is not None and b is not None:
            weight = torch.addmm(weight, b.detach().float(), a.detach().float(), alpha=scale)
        norms: Tensor = torch.linalg.vector_norm(weight, dim=1)
    return norms
