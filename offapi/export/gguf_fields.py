"""A GGUF file's metadata about the network: architecture, sizes and rope, from config.json.

Left out: rope scaling other than linear, llama3 and yarn. What llama.cpp would compute differently
is refused, never approximated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offapi.episodes import Floats
from offapi.errors import ModelError
from offapi.models.gguf_architecture import (
    ARCHITECTURES,
    LOCAL_BASE,
    NO_ROPE_EVERY,
    WINDOWS_BEFORE_FULL,
    Architecture,
    layer_types,
)
from offapi.models.gguf_config import llama3_factors

HEAD_WIDTH = "head_dim"


# llama.cpp computes these networks without these biases.
NO_BIAS = {"qwen2": ("mlp_bias",), "qwen3": ("attention_bias", "mlp_bias")}


def find_architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """Return llama.cpp's architecture for `config`; ModelError where it computes another one."""
    kind = str(config.get("model_type"))
    architecture = ARCHITECTURES.get(kind)
    if architecture is None:
        raise _refused(f"model type {kind!r}", where)
    if config.get("quantization"):
        raise _refused("weights quantised for MLX", where)
    for key in NO_BIAS.get(kind, ()):
        if config.get(key):
            raise _refused(f"{key} in a {kind} model", where)
    activation = config.get("hidden_activation") or config.get("hidden_act", "silu")
    if activation != architecture.constants.get("hidden_act", "silu"):
        raise _refused(f"hidden_act {activation!r}", where)
    if _rope(config).get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
        raise _refused("a rope that rotates a part of each head", where)
    _check_windows(config, kind, where)
    if kind == "smollm3" and not _every_fourth(config):
        raise _refused("another choice of layers without rope than each fourth", where)
    return architecture


def network_fields(config: Mapping[str, Any], where: str) -> dict[str, int | float | str]:
    """Return key -> value of the network's metadata; keys are without the architecture's name."""
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    width = head_width(config)
    fields: dict[str, int | float | str] = {
        "vocab_size": int(config["vocab_size"]),
        "context_length": int(config["max_position_embeddings"]),
        "embedding_length": hidden,
        "block_count": int(config["num_hidden_layers"]),
        "feed_forward_length": int(config["intermediate_size"]),
        "attention.head_count": heads,
        "attention.head_count_kv": int(config.get("num_key_value_heads") or heads),
        "attention.key_length": width,
        "attention.value_length": width,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.dimension_count": width,
        "rope.freq_base": float(_rope(config)["rope_theta"]),
    }
    for key, name in ARCHITECTURES[str(config["model_type"])].numbers.items():
        if config.get(key) is not None:
            fields[name] = config[key] if isinstance(config[key], int) else float(config[key])
    return fields | _scaling(config, where)


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the rope of all layers, or of those without a window."""
    rope: Mapping[str, Any] = config["rope_parameters"]
    full: Mapping[str, Any] = rope.get("full_attention", rope)
    return full


def _check_windows(config: Mapping[str, Any], kind: str, where: str) -> None:
    """Raise ModelError for windows, or ropes of their layers, other than llama.cpp's."""
    window = config.get("sliding_window") or 0
    if kind == "phi3" and 0 < window < int(config["max_position_embeddings"]):
        raise _refused("a phi3 model with a window, which llama.cpp ignores,", where)
    if kind not in WINDOWS_BEFORE_FULL:
        if kind != "phi3" and "sliding_attention" in (config.get("layer_types") or ()):
            raise _refused(f"a {kind} model with windows", where)
        return
    layers = int(config["num_hidden_layers"])
    if (config.get("layer_types") or layer_types(kind, layers)) != layer_types(kind, layers):
        raise _refused("another choice of layers with a window than llama.cpp's", where)
    local = config["rope_parameters"].get("sliding_attention", {})
    if local and (local["rope_type"], local["rope_theta"]) != ("default", LOCAL_BASE):
        raise _refused(f"a rope base other than {LOCAL_BASE:g} in layers with a window", where)
    usual = head_width(config)
    if config.get("query_pre_attn_scalar", usual) != usual:
        raise _refused("a query_pre_attn_scalar other than the width of a head", where)


def head_width(config: Mapping[str, Any]) -> int:
    """Return the width of one attention head."""
    return int(
        config.get(HEAD_WIDTH) or int(config["hidden_size"]) // int(config["num_attention_heads"])
    )


def rope_factors(config: Mapping[str, Any]) -> Floats | None:
    """Return by what each rope frequency of a llama3-scaled model is divided, None for others.

    llama.cpp reads them from a tensor of the file; without it, it would rotate unscaled.
    """
    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return None
    return llama3_factors(rope, float(rope["rope_theta"]), head_width(config))


def _scaling(config: Mapping[str, Any], where: str) -> dict[str, int | float | str]:
    rope = _rope(config)
    kind = rope["rope_type"]
    if kind in ("default", "llama3"):
        return {}
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    known = {"rope_type", "rope_theta", "factor", "original_max_position_embeddings"}
    if kind == "yarn" and not (rope.keys() - known):
        original = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
        return {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(rope["factor"]),
            "rope.scaling.original_context_length": int(original),
        }
    more = ", ".join(sorted(rope.keys() - known)) if kind == "yarn" else ""
    raise _refused(f"rope scaling {kind!r}" + (f" with {more}" if more else ""), where)


def _every_fourth(config: Mapping[str, Any]) -> bool:
    layers = int(config["num_hidden_layers"])
    wanted = [int((i + 1) % NO_ROPE_EVERY != 0) for i in range(layers)]
    named = config.get("no_rope_layers")
    every = config.get("no_rope_layer_interval", NO_ROPE_EVERY)
    return list(named) == wanted if named else every == NO_ROPE_EVERY


def _refused(what: str, where: str) -> ModelError:
    return ModelError(
        f"{what} cannot be exported to GGUF: llama.cpp computes it differently, or not at all.",
        where=where,
        next_step="Export it with `--to fused`, and run it with transformers or vLLM.",
    )
