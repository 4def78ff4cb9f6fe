"""What mlx-lm has to know of a model: its class, and its config in the keys that mlx-lm reads.

A folder holds transformers' config of the text model, in any release's keys. transformers' own
config classes fill in what it leaves out (no torch is needed); from that come the keys that mlx-lm
reads, in memory alone. Left out: weights, and what mlx-lm computes otherwise (`library_repairs`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from mlx.nn.layers.base import Module
from mlx_lm.models import gemma3n, gpt_oss, granitemoehybrid, qwen3_5
from mlx_lm.utils import _get_classes, load_model

from .text_models import Gemma3nText, GptOss, GraniteHybrid

Config = Mapping[str, Any]
SLIDING, FULL = "sliding_attention", "full_attention"
# text parts that mlx-lm has under the name of their multimodal model
MODULES = {"qwen3_vl_text": "qwen3", "qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2"}


def full_config(config: Config) -> dict[str, Any]:
    """Return `config` with what transformers fills in; as it is, for a type it does not know."""
    from transformers import AutoConfig

    try:
        with _quiet():
            known = AutoConfig.for_model(**config).to_dict()
    except (ValueError, TypeError, KeyError, AttributeError):
        return dict(config)
    return {**known, **{key: value for key, value in config.items() if value is not None}}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' warnings about token ids and scalings, which are not for the user."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def windows(config: Config, layers: int) -> tuple[int | None, ...]:
    """Return how many of the last tokens each layer sees, its own included; None: all.

    `config` is a full one. Without `layer_types`, a window is that of every layer.
    """
    window = config.get("sliding_window")
    if not window or config.get("use_sliding_window") is False:
        return (None,) * layers
    types = config.get("layer_types") or [SLIDING] * layers
    return tuple(int(window) if kind == SLIDING else None for kind in types)


def library_keys(config: Config) -> dict[str, Any]:
    """Return the keys that mlx-lm reads, for a full config."""
    keys = dict(config)
    if config.get("model_type") in ("gemma4_text", "ministral3") or "rope_parameters" not in config:
        return keys | _window_pattern(config)
    rope: dict[str, Any] = config["rope_parameters"] or {}
    full: dict[str, Any] = rope.get(FULL, rope)
    if "rope_theta" in full:
        keys["rope_theta"] = full["rope_theta"]
    if SLIDING in rope:
        keys["rope_local_base_freq"] = rope[SLIDING]["rope_theta"]
    if "partial_rotary_factor" in full:
        keys["partial_rotary_factor"] = full["partial_rotary_factor"]
    kind = str(full.get("rope_type") or full.get("type") or "default")
    plain = kind == "default"
    keys["rope_scaling"] = None if plain else {**full, "type": kind, "rope_type": kind}
    keys["rope_parameters"] = {**full, "type": kind, "rope_type": kind}
    return keys | _window_pattern(config) | _renamed(config)


def _window_pattern(config: Config) -> dict[str, Any]:
    """Return the pattern of windows: a period (Gemma 3, Cohere 2), or letters (EXAONE 4)."""
    types: list[str] = config.get("layer_types") or []
    kind = config.get("model_type")
    if kind == "exaone4":
        letters = ["L" if name == SLIDING else "G" for name in types]
        cut = "L" in letters and config.get("sliding_window")
        return {"sliding_window_pattern": "".join(letters) if cut else None}
    if kind in ("gemma3_text", "cohere2") and FULL in types:
        return {"sliding_window_pattern": types.index(FULL) + 1}
    return {}


def _renamed(config: Config) -> dict[str, Any]:
    """Return what mlx-lm calls otherwise, of hybrid models."""
    if config.get("model_type") == "granitemoehybrid":
        names = {"linear_attention": "mamba", FULL: "attention"}
        types = [names.get(name, name) for name in config.get("layer_types") or ()]
        return {"layer_types": types}
    return {}


def load_library(folder: Path, config: Config, lazy: bool = False) -> tuple[Any, dict[str, Any]]:
    """Return mlx-lm's model of a folder with that full config, and its config as mlx-lm reads it.

    Raise whatever mlx-lm raises.
    """
    loaded: tuple[Any, dict[str, Any]] = load_model(
        folder,
        lazy=lazy,
        strict=True,
        model_config=library_keys(config),
        get_model_classes=model_classes,
    )
    return loaded


def model_classes(config: dict[str, Any]) -> tuple[type[Module], type[Any]]:
    """Return mlx-lm's classes of the text model that `config` describes, and of its arguments."""
    kind = str(config["model_type"])
    if kind == "gemma3n_text":
        return Gemma3nText, gemma3n.TextConfig
    if kind in ("qwen3_5_text", "qwen3_5_moe_text"):
        return qwen3_5.TextModel, qwen3_5.TextModelArgs
    if kind == "granitemoehybrid":
        return GraniteHybrid, granitemoehybrid.ModelArgs
    if kind == "gpt_oss":
        return GptOss, gpt_oss.ModelArgs
    if kind in MODULES:
        module = import_module(f"mlx_lm.models.{MODULES[kind]}")
        return module.Model, module.ModelArgs
    classes: tuple[type[Module], type[Any]] = _get_classes(config)
    return classes
