"""One loaded model: a frozen mlx-lm base, the fp32 LoRA matrices on it, and their two layouts.

Left out: how it is loaded (`loader`), and training anything but LoRA on linears.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import mlx.core as mx
import numpy as np

from offapi import adapter
from offapi.errors import BackendError
from offapi.model_spec import LoraSpec
from offapi.optimizer import Arrays

from . import full
from .cache import Following
from .checkpointing import Checkpointing
from .full import Weights


@dataclass
class RowAdapters:
    """What adds each row's adapter in this forward pass; None while all have the policy's."""

    adapters: Any = None


@dataclass
class Policy:
    """The model, its vocabulary head apart, and its LoRA layers by dotted path.

    Without LoRA layers the model is for inference alone.
    """

    model: Any
    head: Any
    windows: tuple[int | None, ...]  # of the layers that have keys and values: tokens that are seen
    lora: dict[str, Any]
    shape: LoraSpec | None
    checkpointing: Checkpointing
    owners: tuple[int, ...] = ()  # whose keys and values the layers after those use
    implementation: Literal["packed", "library"] = "packed"
    longest: int | None = None  # tokens of a row that are computed as transformers does
    loaded: dict[str, mx.array] | None = None  # the adapter that was loaded; None: newly drawn
    prefilled_tokens: int = 0  # prompt tokens that rollouts ran through the model since load
    version: int = 0  # of the adapter's matrices: keys and values of another version are stale
    linears: dict[str, Any] = field(default_factory=dict)  # of the base, by dotted path
    wrapped: set[str] = field(default_factory=set)  # paths whose layers ask `rows`
    rows: RowAdapters = field(default_factory=RowAdapters)
    full: bool = False  # whether every weight is trained
    masters: Weights | None = None  # float32, of a model whose weights are rounded ones
    dtype: str = "float32"
    reload: Callable[[], Any] | None = None  # reads the model from its folder once more

    def hidden(self, tokens_RL: mx.array, caches: list[Any] | None) -> mx.array:
        """Return the last hidden states of `tokens_RL`, shape (R, L, D).

        Without caches, they are those of mlx-lm's own forward pass over whole rows.
        """
        if caches is not None and self.implementation == "packed":
            caches = [*caches, *(Following(caches[owner]) for owner in self.owners)]
        result: mx.array = self.model.model(tokens_RL, cache=caches)
        return result

    @property
    def shares(self) -> bool:
        """Whether rows can follow a prefix that is computed once."""
        return self.implementation == "packed"

    def check_length(self, tokens: int) -> None:
        """Raise BackendError for a row of more tokens than are computed as they should be."""
        if self.longest is not None and tokens > self.longest:
            raise BackendError(
                f"the length of a row must be at most {self.longest} here, got {tokens}: beyond,"
                f" mlx-lm rotates positions otherwise than {self.model.model_type!r} needs.",
                next_step="Lower `max_tokens`, or use the torch backend.",
            )

    def logits(self, hidden_RD: mx.array) -> mx.array:
        """Return the logits of hidden states, fp32, shape (R, V)."""
        result: mx.array = self.head(hidden_RD[None])[0]
        return result.astype(mx.float32)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        return int(self.model.model.embed_tokens.weight.shape[0])

    @contextmanager
    def scored_by_reference(self) -> Iterator[None]:
        """Compute with the adapter that was loaded, or without one if it was newly drawn.

        Of a model trained in full, compute with the weights that were loaded.
        """
        if self.full and self.version and self.loaded is None and self.reload is not None:
            self.loaded = full.weights_of(self.reload())
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
        """Return the LoRA matrices by PEFT's names, in MLX's layout.

        That is A (in, rank) and B (rank, out), and with DoRA the lengths of rows (out,). Of a model
        trained in full, they are all weights by their own names.
        """
        if self.full:
            return self.masters or full.weights_of(self.model)
        matrices = {}
        for path, layer in self.lora.items():
            matrices[adapter.parameter(path, "A")] = layer.lora_a
            matrices[adapter.parameter(path, "B")] = layer.lora_b
            if "m" in layer:  # DoRA's
                matrices[adapter.magnitude(path)] = layer.m
        return matrices

    def assign(self, parameters: dict[str, mx.array]) -> None:
        """Put matrices with the names and layout of `parameters()` in place."""
        if self.full:
            if self.masters is not None:
                self.masters, parameters = parameters, full.rounded(parameters, self.dtype)
            full.assign(self.model, parameters)
            return
        for path, layer in self.lora.items():
            layer.lora_a = parameters[adapter.parameter(path, "A")]
            layer.lora_b = parameters[adapter.parameter(path, "B")]
            if "m" in layer:
                layer.m = parameters[adapter.magnitude(path)]


def adapter_norm(policy: Policy) -> float:
    """Return the Frobenius norm of all scale * B A together, without forming them.

    ||B A||^2 is the sum of (B^T B) * (A A^T). Trained in full, it is the norm of all weights.
    """
    if policy.full:
        return full.norm(policy.parameters())
    terms = [(layer.scale, layer.lora_a, layer.lora_b) for layer in policy.lora.values()]
    squares = mx.stack([scale**2 * ((b @ b.T) * (a.T @ a)).sum() for scale, a, b in terms])
    return math.sqrt(max(0.0, float(np.array(squares.sum()))))


def check_trainable(policy: Policy) -> None:
    """Raise BackendError if there is nothing to train."""
    if policy.shape is None and not policy.full:
        raise BackendError(
            "this model was loaded without an adapter.",
            next_step="Load it with `lora` to train it.",
        )


def to_mlx(arrays: Arrays) -> dict[str, mx.array]:
    """Convert PEFT's layout to MLX's: both matrices are transposed, whole weights are not."""
    return {
        name: mx.array(np.ascontiguousarray(_turned(name, array), np.float32))
        for name, array in arrays.items()
    }


def to_peft(arrays: dict[str, mx.array]) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Convert MLX's layout to PEFT's, copying."""
    return {
        name: _turned(name, np.array(array, dtype=np.float32)).copy()
        for name, array in arrays.items()
    }


def _turned(name: str, array: Any) -> Any:
    return array.T if ".lora_" in name else array


def shapes(policy: Policy) -> adapter.Shapes:
    """Return the shape of each matrix, in PEFT's layout."""
    return {
        name: array.shape[::-1] if ".lora_" in name else array.shape
        for name, array in policy.parameters().items()
    }
