"""What mlx-lm computes otherwise than transformers, put right in a loaded model.

Each repair was measured against transformers' eager forward in float32, on small random models:
nats off before, and below 1e-4 after. Left out: windows, which are the caches' own (`cache`).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log, tau
from typing import Any

import mlx.core as mx
from mlx.nn.layers.activations import gelu_approx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.positional_encoding import RoPE
from mlx.nn.layers.quantized import QuantizedEmbedding
from mlx_lm.models import gemma, gemma2, rope_utils

Config = Mapping[str, Any]


def repair(model: Any, config: Config) -> None:
    """Put `model`, loaded for a full `config`, right."""
    kind = config.get("model_type")
    if kind == "gemma":
        _use_tanh(model, config)
    if kind == "gemma2":
        for layer in model.layers:
            layer.self_attn.__class__ = SoftcapAttention
    if kind == "gemma3_text":
        _scale_exactly(model)
    _repair_ropes(model, config)


def longest(config: Config) -> int | None:
    """Return the most tokens of a row that are computed as transformers does; None: any number.

    Beyond them, rotations depend on the length of the whole row.
    """
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind == "dynamic":
        return int(config["max_position_embeddings"])
    return _original(config, scaling) if kind in ("longrope", "su") else None


def _original(config: Config, scaling: Config) -> int:
    key = "original_max_position_embeddings"
    return int(scaling.get(key) or config.get(key) or config["max_position_embeddings"])


# mlx-lm takes the exact GELU, the model was trained with tanh's: 1.5e-3 nats
class _TanhMLP(gemma.MLP):
    def __call__(self, x: mx.array) -> mx.array:
        result: mx.array = self.down_proj(gelu_approx(self.gate_proj(x)) * self.up_proj(x))
        return result


def _use_tanh(model: Any, config: Config) -> None:
    if "tanh" in str(config.get("hidden_act")):
        for layer in model.layers:
            layer.mlp.__class__ = _TanhMLP


# mlx-lm rounds sqrt(hidden_size) to bfloat16 in float32 too: 1.7e-2 nats for 96
class _ExactEmbedding(Embedding):
    def __call__(self, x: mx.array) -> mx.array:
        factor: float = self.correction
        embedded: mx.array = super().__call__(x)  # type: ignore[no-untyped-call]
        return embedded * factor


class _ExactQuantizedEmbedding(QuantizedEmbedding):
    def __call__(self, x: mx.array) -> mx.array:
        factor: float = self.correction
        embedded: mx.array = super().__call__(x)  # type: ignore[no-untyped-call]
        return embedded * factor


def _scale_exactly(model: Any) -> None:
    table: Any = model.model.embed_tokens
    root = float(model.args.hidden_size) ** 0.5
    rounded = mx.array(root, mx.bfloat16).astype(mx.float32).item()
    quantised = isinstance(table, QuantizedEmbedding)
    dtype = table.scales.dtype if quantised else table.weight.dtype
    if dtype != mx.bfloat16 and root != rounded:
        table.correction = root / float(rounded)  # type: ignore[arg-type]
        table.__class__ = _ExactQuantizedEmbedding if quantised else _ExactEmbedding


class SoftcapAttention(gemma2.Attention):
    """Gemma 2's attention, asking the cache: mlx-lm computes it in place, without windows."""

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        """See mlx-lm; a cache that attends knows prefix and window."""
        if not hasattr(cache, "attend"):
            plain: mx.array = super().__call__(x, mask, cache)
            return plain
        rows, length, _ = x.shape
        parts = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        heads = (self.n_heads, self.n_kv_heads, self.n_kv_heads)
        queries, keys, values = (
            part.reshape(rows, length, count, -1).swapaxes(1, 2)
            for part, count in zip(parts, heads, strict=True)
        )
        queries = self.rope(queries, offset=cache.offset)
        keys = self.rope(keys, offset=cache.offset)
        keys, values = cache.update_and_fetch(keys, values)
        mixed = cache.attend(queries, keys, values, self.scale, softcap=self.attn_logit_softcapping)
        result: mx.array = self.o_proj(mixed.swapaxes(1, 2).reshape(rows, length, -1))
        return result


def _repair_ropes(model: Module, config: Config) -> None:
    scaling: dict[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaling = scaling.get("full_attention", scaling)
    modules: list[Any] = model.modules()  # type: ignore[no-untyped-call]
    for rope in modules:
        if isinstance(rope, rope_utils.SuScaledRoPE):
            _use_short_factors(rope, config, scaling)
        if isinstance(rope, rope_utils.DynamicNTKScalingRoPE):  # plain, up to `longest`
            rope.scale = 1.0
            rope.__class__ = RoPE  # type: ignore[assignment]
        if isinstance(rope, rope_utils.YarnRoPE):
            _repair_yarn(rope, scaling)


# mlx-lm takes the factors of long rows for every row
def _use_short_factors(rope: Any, config: Config, scaling: Config) -> None:
    long, short = (mx.array(scaling[f"{name}_factor"], mx.float32) for name in ("long", "short"))
    rope._freqs = rope._freqs / long * short
    if scaling.get("attention_factor"):
        rope._scale = float(scaling["attention_factor"])


# mlx-lm leaves out `attention_factor` (OLMo 3: 1.3e-4 nats) and `truncate` (gpt-oss)
def _repair_yarn(rope: Any, scaling: Config) -> None:
    if scaling.get("attention_factor"):
        rope.mscale = float(scaling["attention_factor"])
    if scaling.get("truncate", True):
        return
    base, width = float(scaling["rope_theta"]), int(rope.dims)
    ends = [
        width * log(_length(scaling) / (scaling.get(key, turns) * tau)) / (2 * log(base))
        for key, turns in (("beta_fast", 32), ("beta_slow", 1))
    ]
    low, high = max(ends[0], 0.0), min(ends[1], width - 1.0)
    ramp = mx.clip((mx.arange(width // 2) - low) / (high - low), 0, 1)
    plain = base ** (mx.arange(0, width, 2) / width)
    rope._freqs = 1 / (ramp / (scaling["factor"] * plain) + (1 - ramp) / plain)


def _length(scaling: Config) -> float:
    return float(scaling["original_max_position_embeddings"])
