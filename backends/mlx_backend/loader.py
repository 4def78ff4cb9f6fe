"""A policy from its files: an mlx-lm base, and LoRA matrices drawn by the core or read from PEFT.

Left out: models whose files bring code.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import mlx.core as mx
import orjson
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear
from mlx_lm.models.cache import make_prompt_cache

from offapi import adapter
from offapi.errors import ModelError
from offapi.model_spec import ModelSpec

from . import attention, checkpointing, full
from .injection import add_lora, first_arrays
from .library_config import full_config, load_library, windows
from .library_repairs import longest, repair
from .linux_cpu import fast_swiglu
from .load_checks import check_rope, check_weights, choose_implementation
from .policy import Policy, shapes, to_mlx
from .quantised import check_stored, quantise


class _Given:
    """A stand-in for the layers before a head, which returns its input."""

    def __init__(self, base: Any) -> None:
        self.base = base

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    def __call__(self, hidden: mx.array, *_: Any, **__: Any) -> mx.array:
        return hidden


def load_policy(spec: ModelSpec) -> Policy:
    """Load base and adapter.

    Raise ModelError for files that are missing, damaged, refused or do not fit.
    """
    if spec.full:
        adapter.check_full(spec)
    shape, saved = adapter.read_requested(spec)
    model, config = _load_base(spec)
    check_rope(model, config, spec.path)
    linears = _linears(model)
    lora = add_lora(model, linears, shape, spec) if shape else {}
    policy = Policy(
        model=model,
        head=_head(model),
        windows=windows(config, len(model.layers))[: len(make_prompt_cache(model))],
        lora=lora,
        shape=shape,
        checkpointing=checkpointing.wrap(model, lora, spec),
        owners=_owners(model),
        longest=longest(config),
        linears=linears,
    )
    if shape is not None:
        arrays = first_arrays(policy, spec.seed) if saved is None else saved
        adapter.check_fit(arrays, shapes(policy), str(spec.adapter or spec.path))
        matrices = to_mlx(arrays)
        policy.assign(matrices)
        policy.loaded = None if saved is None else matrices
    policy.full, policy.reload, policy.dtype = spec.full, lambda: _load_base(spec)[0], spec.dtype
    if spec.full and spec.dtype != "float32":
        policy.masters = full.weights_of(model)
        policy.assign(policy.masters)
    model.eval()
    mx.eval(model.parameters())
    check_weights(policy, spec)
    choose_implementation(policy, spec)
    return policy


def _load_base(spec: ModelSpec) -> tuple[Any, dict[str, Any]]:
    path = Path(spec.path)
    config_path = path / "config.json"
    try:
        config = orjson.loads(config_path.read_bytes())
    except FileNotFoundError:
        raise ModelError(
            "no model here: config.json is missing.",
            where=str(path),
            next_step="Choose a model that `offapi models list` shows.",
        ) from None
    except orjson.JSONDecodeError as error:
        raise ModelError(
            f"not valid JSON ({error}).", where=str(config_path), next_step="Add the model again."
        ) from None
    if config.get("model_file") is not None:
        raise ModelError(
            "the model brings its own code (`model_file`), which is never run.",
            where=str(config_path),
            next_step="Use a model of a type that mlx-lm knows.",
        )
    check_stored(config, spec)
    config = full_config(config)
    try:
        whole, loaded = load_library(path, config, lazy=spec.quantize is not None)
    except Exception as error:  # whatever mlx-lm and the file reader raise for a bad folder
        what = f"mlx-lm cannot load the model: {error}"
        raise ModelError(what, where=str(path), next_step="Run `offapi models verify`.") from error
    model: Any = getattr(whole, "language_model", whole)
    if not hasattr(model, "model"):
        raise ModelError(
            f"model type {config.get('model_type')!r} is not supported on MLX: mlx-lm does not have"
            " its head apart.",
            where=str(config_path),
            next_step="Use the torch backend for this model.",
        )
    model.set_dtype(mx.float32 if spec.full else getattr(mx, spec.dtype))
    quantise(model, loaded, spec)
    repair(model, config)
    attention.install(model)
    fast_swiglu.install(model)
    return model, config


def _head(model: Module) -> Module:
    head = copy.copy(model)
    head.model = _Given(model.model)
    return head


def _owners(model: Any) -> tuple[int, ...]:
    """Return the layer whose keys and values each layer uses that has none (Gemma 4)."""
    own = len(make_prompt_cache(model))
    return tuple(getattr(model.model, "previous_kvs", ())[own:])


def _linears(model: Any) -> dict[str, Any]:
    return {
        path: module
        for path, module in model.named_modules()
        if path.startswith("model.") and isinstance(module, Linear | QuantizedLinear)
    }
