"""One loaded model: an mlx-lm base, frozen, and the LoRA
matrices on it, fp32; and their layout here and in PEFT.

Left out: how it is loaded (`loader`), and training anything but LoRA on linears.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from offapi import adapter
from offapi.backend import Arrays, LoraSpec
from offapi.errors import BackendError


@dataclass
class Policy:
    """The model, its vocabulary head apart, and its
    LoRA layers by dotted path (empty: inference alone).
    """

    model: Any
    head: Any
    layers: int
    lora: dict[str, Any]
    shape: LoraSpec | None
    loaded: dict[str, mx.array] | None = (
        None  # the matrices of the adapter that was loaded; None: drawn fresh
    )
    prefilled_tokens: int = 0  # prompt tokens that rollouts ran through the model since load

    def hidden(self, tokens: mx.array, caches: list[Any]) -> mx.array:
        """Last hidden states of `tokens` (rows, T), shape (rows, T, width)."""
        result: mx.array = self.model.model(tokens, cache=caches)
        return result

    def logits(self, hidden: mx.array) -> mx.array:
        """Logits of hidden states (rows, width), fp32, shape (rows, V)."""
        result: mx.array = self.head(hidden[None])[0]
        return result.astype(mx.float32)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        return int(self.model.model.embed_tokens.weight.shape[0])

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the adapter is the one that was loaded,
        or off (its scale 0) where it was drawn fresh.
        """
        if self.loaded is not None:
            current = self.parameters()
            try:
                self.assign(self.loaded)
                yield
            finally:
                self.assign(current)
            return
        scales = {path: layer.scale for path, layer in self.lora.items()}
        try:
            for layer in self.lora.values():
                layer.scale = 0.0
            yield
        finally:
            for path, layer in self.lora.items():
                layer.scale = scales[path]

    def parameters(self) -> dict[str, mx.array]:
        """The LoRA matrices in MLX's layout (A (in, rank), B (rank, out)) under PEFT's names."""
        pairs = ((path, layer) for path, layer in self.lora.items())
        return {
            adapter.parameter(path, matrix): getattr(layer, f"lora_{matrix.lower()}")
            for path, layer in pairs
            for matrix in "AB"
        }

    def assign(self, parameters: dict[str, mx.array]) -> None:
        """Put matrices of `parameters()`'s names and layout in place."""
        for path, layer in self.lora.items():
            layer.lora_a = parameters[adapter.parameter(path, "A")]
            layer.lora_b = parameters[adapter.parameter(path, "B")]


def adapter_norm(policy: Policy) -> float:
    """Frobenius norm of all alpha / rank * B @ A, without
    forming them: |BA|^2 is the sum over (B^T B) * (A A^T).
    """
    pairs = [(layer.lora_a, layer.lora_b) for layer in policy.lora.values()]
    squares = mx.stack([((b @ b.T) * (a.T @ a)).sum() for a, b in pairs])
    return trainable(policy).scale * math.sqrt(max(0.0, float(np.array(squares.sum()))))


def trainable(policy: Policy) -> LoraSpec:
    """The LoRA shape. Raises BackendError when the model was loaded for inference alone."""
    if policy.shape is None:
        raise BackendError(
            "this model was loaded without an adapter.",
            next_step="Load it with `lora` to train it.",
        )
    return policy.shape


def to_mlx(arrays: Arrays) -> dict[str, mx.array]:
    """PEFT's layout to MLX's: both matrices transposed."""
    return {
        name: mx.array(np.ascontiguousarray(array.T, np.float32)) for name, array in arrays.items()
    }


def to_peft(arrays: dict[str, mx.array]) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """MLX's layout to PEFT's, copied."""
    return {name: np.array(array, dtype=np.float32).T.copy() for name, array in arrays.items()}


def shapes(policy: Policy) -> adapter.Shapes:
    """The shape of each matrix, in PEFT's layout."""
    return {name: array.shape[::-1] for name, array in policy.parameters().items()}
