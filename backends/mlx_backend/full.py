"""Training every weight: which they are, and the weights as they were loaded, for the reference.

A weight that two layers share is one array. In bfloat16, where most of a small step would be lost
in rounding, float32 masters are trained, of which the model has rounded copies. Left out: fewer
bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

Weights = dict[str, mx.array]


def weights_of(model: Any) -> Weights:
    """Return every weight of `model` by name."""
    flat: Any = tree_flatten(model.parameters())
    return {name: array for name, array in flat if mx.issubdtype(array.dtype, mx.floating)}


def assign(model: Any, weights: Weights) -> None:
    """Put weights with the names of `weights_of` in place."""
    model.update(tree_unflatten(list(weights.items())))


def rounded(weights: Weights, dtype: str) -> Weights:
    """Return `weights` in `dtype`."""
    return {name: array.astype(getattr(mx, dtype)) for name, array in weights.items()}


def norm(weights: Weights) -> float:
    """Return the Frobenius norm of all weights together."""
    squares = mx.stack([mx.square(weight).sum() for weight in weights.values()])
    return math.sqrt(float(np.array(squares.sum())))


def checkpointed(
    model: Any, head: Callable[[mx.array], mx.array]
) -> Callable[[mx.array], mx.array]:
    """Return `head`, computed by what of `model` comes after its base, as a checkpoint.

    MLX gives a gradient to what such a function is given alone, so that it is given the weights.
    """
    outside = {name: array for name, array in weights_of(model).items() if ".layers." not in name}
    own = {name: array for name, array in outside.items() if "lm_head" in name}
    weights = own or {name: array for name, array in outside.items() if "embed_tokens" in name}

    def inner(states: mx.array, given: Weights) -> mx.array:
        assign(model, given)
        return head(states)

    def outer(states: mx.array) -> mx.array:
        result: mx.array = mx.checkpoint(inner)(states, weights)
        assign(model, weights)  # tracing left its own arrays
        return result

    return outer
