"""Which tensors, of which shapes, a model with a given config consists of.

transformers fills a missing tensor with random numbers and warns; this refuses instead. One layout
serves every model type that offapi supports. Left out: MLX-quantised folders, whose shapes depend
on the packing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offapi.errors import ModelError

Shapes = Mapping[str, tuple[int, ...]]
MOST, MOST_LAYERS = 10_000_000, 10_000
QKV_BIAS, HEAD_NORMS = ("qwen2",), ("qwen3",)


def check_tensors(config: Mapping[str, Any], found: Shapes, where: str) -> None:
    """Raise ModelError unless `found` are the tensors that `config` describes."""
    if config.get("quantization"):
        return
    wanted = expected_shapes(config, where)
    for name, shape in wanted.items():
        if found.get(name) != shape:
            has = f"has shape {found[name]}" if name in found else "is missing"
            raise ModelError(
                f"tensor {name!r} {has}; config.json requires {shape}.",
                where=where,
                next_step=_NEXT,
            )
    extra = [
        name for name in found if name not in wanted and not name.endswith("rotary_emb.inv_freq")
    ]
    if config.get("tie_word_embeddings") and "lm_head.weight" in extra:
        extra.remove("lm_head.weight")
    if extra:
        raise ModelError(
            f"tensor {extra[0]!r} does not belong to this model.", where=where, next_step=_NEXT
        )


_NEXT = "Check that weights and config.json belong together, or copy them again."


def expected_shapes(config: Mapping[str, Any], where: str) -> dict[str, tuple[int, ...]]:
    """Return name -> shape, with transformers' names."""

    def size(key: str, default: int | None = None) -> int:
        value = config.get(key) if config.get(key) is not None else default
        if type(value) is not int or not 1 <= value <= MOST:
            raise ModelError(
                f"{key} must be a whole number from 1 to {MOST}, got {value!r}.",
                where=f"{where}, field {key!r}",
                next_step=_NEXT,
            )
        return value

    hidden, heads, vocab = size("hidden_size"), size("num_attention_heads"), size("vocab_size")
    width, inner = size("head_dim", hidden // heads), size("intermediate_size")
    queries, keys = heads * width, size("num_key_value_heads", heads) * width
    kind = config.get("model_type")
    attention_bias, mlp_bias = bool(config.get("attention_bias")), bool(config.get("mlp_bias"))
    linears = {
        "self_attn.q_proj": (queries, hidden, attention_bias or kind in QKV_BIAS),
        "self_attn.k_proj": (keys, hidden, attention_bias or kind in QKV_BIAS),
        "self_attn.v_proj": (keys, hidden, attention_bias or kind in QKV_BIAS),
        "self_attn.o_proj": (hidden, queries, attention_bias and kind not in QKV_BIAS),
        "mlp.gate_proj": (inner, hidden, mlp_bias),
        "mlp.up_proj": (inner, hidden, mlp_bias),
        "mlp.down_proj": (hidden, inner, mlp_bias),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (vocab, hidden)
    for layer in (f"model.layers.{i}" for i in range(min(size("num_hidden_layers"), MOST_LAYERS))):
        shapes |= {
            f"{layer}.{name}.weight": (hidden,)
            for name in ("input_layernorm", "post_attention_layernorm")
        }
        if kind in HEAD_NORMS:
            shapes |= {
                f"{layer}.self_attn.{name}.weight": (width,) for name in ("q_norm", "k_norm")
            }
        for name, (rows, columns, bias) in linears.items():
            shapes[f"{layer}.{name}.weight"] = (rows, columns)
            if bias:
                shapes[f"{layer}.{name}.bias"] = (rows,)
    return shapes
