"""One loaded model: an mlx-lm base, frozen, and the LoRA matrices on it, fp32, drawn by the core or read from PEFT.

Left out: training anything but LoRA on linears, models whose files bring code, other caches
than plain keys and values.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import orjson
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear, quantize
from mlx.utils import tree_unflatten
from mlx_lm.models.cache import KVCache, make_prompt_cache
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.utils import load_model

from offapi import adapter
from offapi.backend import Arrays, LoraSpec, ModelSpec
from offapi.errors import BackendError, ModelError, nearest
from offapi.randomness import lora_matrices

from . import activations, attention
from .checks import check_attention, check_rope

GROUP = 64  # weights that share a scale where a base is quantised at load, mlx-lm's default
BITS = (2, 3, 4, 5, 6, 8)


class _Given(Module):
    """Stands for the layers in front of a head, and hands on what it is given."""

    def __init__(self, embed_tokens: Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.embed_tokens = embed_tokens

    def __call__(self, hidden: mx.array, *_: Any, **__: Any) -> mx.array:
        return hidden


@dataclass
class Policy:
    """The model, its vocabulary head apart, and its LoRA layers by dotted path (empty: inference alone)."""

    model: Any
    head: Any
    layers: int
    lora: dict[str, Any]
    shape: LoraSpec | None
    loaded: dict[str, mx.array] | None = None  # the matrices of the adapter that was loaded; None: drawn fresh
    prefilled_tokens: int = 0  # prompt tokens that rollouts ran through the model since load

    def hidden(self, tokens: mx.array, caches: list[Any]) -> mx.array:
        """Last hidden states of `tokens` (rows, T), shape (rows, T, width)."""
        result: mx.array = self.model.model(tokens, cache=caches)
        return result

    def logits(self, hidden: mx.array) -> mx.array:
        """Logits of hidden states (rows, width), fp32, shape (rows, V)."""
        result: mx.array = self.head(hidden[None])[0]
        return result.astype(mx.float32)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the adapter is the one that was loaded, or off (its scale 0) where it was drawn fresh."""
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
    """Frobenius norm of all alpha / rank * B @ A, without forming them: |BA|^2 is the sum over (B^T B) * (A A^T)."""
    pairs = [(layer.lora_a, layer.lora_b) for layer in policy.lora.values()]
    squares = mx.stack([((b @ b.T) * (a.T @ a)).sum() for a, b in pairs])
    return trainable(policy).scale * math.sqrt(max(0.0, float(np.array(squares.sum()))))


def load_policy(spec: ModelSpec) -> Policy:
    """Load base and adapter. Raises ModelError for what is missing, damaged, refused or does not fit."""
    saved = adapter.read(spec.adapter) if spec.adapter else None
    shape = saved[0] if saved else spec.lora
    if saved and spec.lora and _plain(saved[0]) != _plain(spec.lora):
        raise ModelError(
            f"the adapter has {_describe(saved[0])}, the recipe asks for {_describe(spec.lora)}.",
            where=str(spec.adapter),
            next_step="Ask for the adapter's shape, or start without it.",
        )
    model, config = _load_base(spec)
    layers = len(model.layers)
    check_rope(model, config, spec.path)
    lora = _add_lora(model, shape, spec) if shape else {}
    policy = Policy(model=model, head=_head(model), layers=layers, lora=lora, shape=shape)
    arrays = saved[1] if saved else _initial(policy, spec.seed)
    matrices = to_mlx(_checked(policy, arrays, str(spec.adapter or spec.path)))
    policy.assign(matrices)
    policy.loaded = matrices if saved else None
    model.eval()
    mx.eval(model.parameters())
    check_attention(policy, spec)
    return policy


def to_mlx(arrays: Arrays) -> dict[str, mx.array]:
    """PEFT's layout to MLX's: both matrices transposed."""
    return {name: mx.array(np.ascontiguousarray(array.T)) for name, array in arrays.items()}


def to_peft(arrays: dict[str, mx.array]) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """MLX's layout to PEFT's, copied."""
    return {name: np.array(array, dtype=np.float32).T.copy() for name, array in arrays.items()}


def misfit(arrays: Arrays, expected: dict[str, mx.array]) -> str:
    """How names or shapes of PEFT-layout `arrays` differ from MLX-layout `expected`; "" when they fit."""
    missing, extra = sorted(expected.keys() - arrays.keys()), sorted(arrays.keys() - expected.keys())
    if missing or extra:
        return f"{len(missing)} matrices missing {missing[:2]}, {len(extra)} not in the model {extra[:2]}"
    wrong = [name for name, array in expected.items() if arrays[name].shape != array.shape[::-1]]
    first = wrong[0] if wrong else ""
    return first and f"{first} has shape {arrays[first].shape}, not {expected[first].shape[::-1]}"


def _load_base(spec: ModelSpec) -> tuple[Any, dict[str, Any]]:
    path = Path(spec.path)
    file = path / "config.json"
    try:
        config = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        raise ModelError(
            "no model here (no config.json).", where=str(path), next_step="See `offapi models list`."
        ) from None
    except orjson.JSONDecodeError as error:
        raise ModelError(f"not valid JSON ({error}).", where=str(file), next_step="Add the model again.") from None
    if config.get("model_file") is not None:
        raise ModelError(
            "the model wants to run code of its own (`model_file`), which is refused.",
            where=str(file),
            next_step="Use a model of a type mlx-lm knows.",
        )
    try:
        model, config = load_model(path, lazy=False, strict=True)
    except Exception as error:  # whatever mlx-lm and the file reader raise for a bad folder
        what = f"mlx-lm cannot load it: {error}"
        raise ModelError(what, where=str(path), next_step="Run `offapi models verify`.") from error
    if any(type(cache) is not KVCache for cache in make_prompt_cache(model)) or not hasattr(model, "model"):
        raise ModelError(f"model type {config.get('model_type')!r} is not supported on MLX.", where=str(file))
    model.set_dtype(getattr(mx, spec.dtype))
    _quantize(model, config, spec)
    attention.install(model)
    activations.install(model)
    return model, config


def _quantize(model: Module, config: dict[str, Any], spec: ModelSpec) -> None:
    if spec.quantize is None:
        return
    present = config.get("quantization") or config.get("quantization_config")
    if spec.quantize not in BITS or present:
        raise ModelError(
            "it is quantised already." if present else f"{spec.quantize} bits are not possible on MLX.",
            where=str(spec.path),
            next_step="Load it without asking for bits." if present else f"Choose one of {', '.join(map(str, BITS))}.",
        )

    def fits(_: str, module: Module) -> bool:
        return hasattr(module, "to_quantized") and module.weight.shape[-1] % GROUP == 0

    quantize(model, group_size=GROUP, bits=spec.quantize, class_predicate=fits)


def _head(model: Module) -> Module:
    head = copy.copy(model)
    head.model = _Given(model.model.embed_tokens)
    return head


def _add_lora(model: Any, shape: LoraSpec, spec: ModelSpec) -> dict[str, Any]:
    modules = ((path, module) for path, module in model.named_modules() if path.startswith("model."))
    inside = {path: module for path, module in modules if isinstance(module, Linear | QuantizedLinear)}
    known = {path.rsplit(".", 1)[-1] for path in inside}
    for target in shape.targets:
        if not any(path.endswith(f".{target}") for path in inside):
            where, next_step = str(spec.path), nearest(target, known)
            raise ModelError(f"no linear layer {target!r} to adapt.", where=where, next_step=next_step)
    chosen = {path: m for path, m in inside.items() if path.endswith(tuple(f".{target}" for target in shape.targets))}
    lora = {path: LoRALinear.from_base(m, r=shape.rank, dropout=0.0, scale=shape.scale) for path, m in chosen.items()}
    model.update_modules(tree_unflatten(list(lora.items())))
    return lora


def _initial(policy: Policy, seed: int) -> Arrays:
    arrays: dict[str, Any] = {}
    for path, layer in policy.lora.items():
        (inputs, rank), outputs = layer.lora_a.shape, layer.lora_b.shape[1]
        a, b = lora_matrices(seed, path, rank, inputs, outputs)
        arrays |= {adapter.parameter(path, "A"): a, adapter.parameter(path, "B"): b}
    return arrays


def _checked(policy: Policy, arrays: Arrays, where: str) -> Arrays:
    problem = misfit(arrays, policy.parameters())
    if problem:
        raise ModelError(f"the adapter does not fit the model: {problem}.", where=where, next_step="Use its own base.")
    return arrays


def _plain(shape: LoraSpec) -> tuple[int, float, tuple[str, ...]]:
    return shape.rank, shape.alpha, tuple(sorted(shape.targets))


def _describe(shape: LoraSpec) -> str:
    return f"rank {shape.rank}, alpha {shape.alpha:g} on {', '.join(sorted(shape.targets))}"


def trainable(policy: Policy) -> LoraSpec:
    """The LoRA shape. Raises BackendError when the model was loaded for inference alone."""
    if policy.shape is None:
        raise BackendError("this model was loaded without an adapter.", next_step="Load it with `lora` to train it.")
    return policy.shape
