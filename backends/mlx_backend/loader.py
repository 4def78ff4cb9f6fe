"""A policy from its files: an mlx-lm base, and LoRA matrices drawn by the core or read from PEFT.

Left out: models whose files bring code, other caches than plain keys and values.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import mlx.core as mx
import orjson
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear, quantize
from mlx.utils import tree_unflatten
from mlx_lm.models.cache import KVCache, make_prompt_cache
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.utils import load_model

from offapi import adapter
from offapi.backend import LoraSpec, ModelSpec
from offapi.errors import ModelError

from . import attention
from .linux_cpu import fast_swiglu
from .load_checks import check_attention, check_rope
from .policy import Policy, shapes, to_mlx

GROUP = 64  # weights that share a scale where a base is quantised at load, mlx-lm's default
BITS = (2, 3, 4, 5, 6, 8)


class _Given(Module):
    """Stands for the layers in front of a head, and hands on what it is given."""

    def __init__(self, embed_tokens: Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.embed_tokens = embed_tokens

    def __call__(self, hidden: mx.array, *_: Any, **__: Any) -> mx.array:
        return hidden


def load_policy(spec: ModelSpec) -> Policy:
    """Load base and adapter.

    Raises ModelError for what is missing, damaged, refused or does not fit.
    """
    shape, saved = adapter.read_requested(spec)
    model, config = _load_base(spec)
    layers = len(model.layers)
    check_rope(model, config, spec.path)
    lora = _add_lora(model, shape, spec) if shape else {}
    policy = Policy(model=model, head=_head(model), layers=layers, lora=lora, shape=shape)
    arrays = adapter.draw_matrices(shapes(policy), spec.seed) if saved is None else saved
    adapter.check_fit(arrays, shapes(policy), str(spec.adapter or spec.path))
    matrices = to_mlx(arrays)
    policy.assign(matrices)
    policy.loaded = None if saved is None else matrices
    model.eval()
    mx.eval(model.parameters())
    check_attention(policy, spec)
    return policy


def _load_base(spec: ModelSpec) -> tuple[Any, dict[str, Any]]:
    path = Path(spec.path)
    file = path / "config.json"
    try:
        config = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        raise ModelError(
            "no model here (no config.json).",
            where=str(path),
            next_step="See `offapi models list`.",
        ) from None
    except orjson.JSONDecodeError as error:
        raise ModelError(
            f"not valid JSON ({error}).", where=str(file), next_step="Add the model again."
        ) from None
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
    if any(type(cache) is not KVCache for cache in make_prompt_cache(model)) or not hasattr(
        model, "model"
    ):
        raise ModelError(
            f"model type {config.get('model_type')!r} is not supported on MLX.", where=str(file)
        )
    model.set_dtype(getattr(mx, spec.dtype))
    _quantize(model, config, spec)
    attention.install(model)
    fast_swiglu.install(model)
    return model, config


def _quantize(model: Module, config: dict[str, Any], spec: ModelSpec) -> None:
    if spec.quantize is None:
        return
    present = config.get("quantization") or config.get("quantization_config")
    if spec.quantize not in BITS or present:
        raise ModelError(
            "it is quantised already."
            if present
            else f"{spec.quantize} bits are not possible on MLX.",
            where=str(spec.path),
            next_step="Load it without asking for bits."
            if present
            else f"Choose one of {', '.join(map(str, BITS))}.",
        )

    def fits(_: str, module: Module) -> bool:
        return hasattr(module, "to_quantized") and module.weight.shape[-1] % GROUP == 0

    quantize(model, group_size=GROUP, bits=spec.quantize, class_predicate=fits)


def _head(model: Module) -> Module:
    head = copy.copy(model)
    head.model = _Given(model.model.embed_tokens)
    return head


def _add_lora(model: Any, shape: LoraSpec, spec: ModelSpec) -> dict[str, Any]:
    modules = (
        (path, module) for path, module in model.named_modules() if path.startswith("model.")
    )
    inside = {
        path: module for path, module in modules if isinstance(module, Linear | QuantizedLinear)
    }
    adapter.check_targets(shape, (path.rsplit(".", 1)[-1] for path in inside), spec.path)
    chosen = {
        path: m
        for path, m in inside.items()
        if path.endswith(tuple(f".{target}" for target in shape.targets))
    }
    lora = {
        path: LoRALinear.from_base(m, r=shape.rank, dropout=0.0, scale=shape.scale)
        for path, m in chosen.items()
    }
    model.update_modules(tree_unflatten(list(lora.items())))
    return lora
