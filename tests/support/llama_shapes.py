"""The tensors of a Llama, Mistral, Qwen or SmolLM3 with a given config, for tests that write one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

QKV_BIAS, HEAD_NORMS = ("qwen2",), ("qwen3",)


def llama_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape, with transformers' names."""

    def size(key: str, default: int = 0) -> int:
        return int(config[key] if config.get(key) is not None else default)

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
    for layer in (f"model.layers.{i}" for i in range(size("num_hidden_layers"))):
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
