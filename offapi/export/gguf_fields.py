"""A GGUF file's metadata about the network: architecture, sizes and rope, from config.json.

Left out: rope scaling other than linear, llama3 and yarn. What llama.cpp would compute differently
is refused, never approximated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from offapi.episodes import Floats
from offapi.errors import ModelError

HEAD_WIDTH = "head_dim"


@dataclass(frozen=True)
class Architecture:
    """llama.cpp's name of a network.

    `interleaved`: its rope turns neighbouring rows of a head, so the rows of q and k are reordered.
    """

    name: str
    interleaved: bool


ARCHITECTURES = {
    "llama": Architecture("llama", interleaved=True),
    "mistral": Architecture("llama", interleaved=True),
    "smollm3": Architecture("smollm3", interleaved=True),
    "qwen2": Architecture("qwen2", interleaved=False),
    "qwen3": Architecture("qwen3", interleaved=False),
}
# llama.cpp computes these networks without these biases.
NO_BIAS = {"qwen2": ("mlp_bias",), "qwen3": ("attention_bias", "mlp_bias")}
NO_ROPE_EVERY = 4  # llama.cpp's smollm3 has no rope in each fourth layer, whatever a file says


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
    if config.get("hidden_act", "silu") != "silu":
        raise _refused(f"hidden_act {config['hidden_act']!r}", where)
    if config.get("partial_rotary_factor", 1.0) != 1.0:
        raise _refused("a rope that rotates a part of each head", where)
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
        "rope.freq_base": float(config["rope_theta"]),
    }
    return fields | _scaling(config, where)


def head_width(config: Mapping[str, Any]) -> int:
    """Return the width of one attention head."""
    return int(
        config.get(HEAD_WIDTH) or int(config["hidden_size"]) // int(config["num_attention_heads"])
    )


def rope_factors(config: Mapping[str, Any]) -> Floats | None:
    """Return by what each rope frequency of a llama3-scaled model is divided, None for others.

    llama.cpp reads them from a tensor of the file; without it, it would rotate unscaled.
    """
    rope = config["rope_parameters"]
    if rope["rope_type"] != "llama3":
        return None
    width, theta = head_width(config), float(rope["rope_theta"])
    wavelengths = 2 * math.pi * theta ** (np.arange(0, width, 2, dtype=np.float64) / width)
    original = float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    factor = float(rope["factor"])
    smooth = np.clip((original / wavelengths - low) / (high - low), 0.0, 1.0)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), dtype=np.float32)


def _scaling(config: Mapping[str, Any], where: str) -> dict[str, int | float | str]:
    rope = config["rope_parameters"]
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
