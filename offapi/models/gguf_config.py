"""config.json from a GGUF file's metadata: sizes, rope, windows and scales.

A file names no rope scaling of Llama 3's kind but holds its factors: the settings are found that
give them. Left out: rope scaling other than linear, yarn, llama3 and longrope.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from offapi.models.gguf_architecture import (
    LOCAL_BASE,
    NO_ROPE_EVERY,
    WINDOWS_BEFORE_FULL,
    layer_types,
)

if TYPE_CHECKING:
    from offapi.models.gguf_weights import GgufSource

IDS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
# Llama 3's own settings beside the factor, which is the largest of the factors in the file.
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
ORIGINAL_LENGTHS = (8192, *(1 << bits for bits in range(5, 21)))  # tokens; Llama 3's first
CLOSE = 1e-4  # relative, between the factors of a file and those of settings


class Metadata:
    """The numbers that a file says of its network, by llama.cpp's keys."""

    def __init__(self, source: GgufSource) -> None:
        self.source = source

    def number(self, key: str, default: float | None = None) -> float:
        """Return the value of `key`; raise ModelError when it is missing or not a number."""
        full = f"{self.source.architecture.name}.{key}"
        value = self.source.file.fields.get(full, default)
        if not isinstance(value, (int, float)):
            raise self.source.refuse(f"{full} must be one number.")
        return value

    def text(self, key: str, default: str) -> str:
        """Return the value of `key` as text."""
        return str(self.source.file.fields.get(f"{self.source.architecture.name}.{key}", default))

    def has(self, key: str) -> bool:
        """Whether the file names `key`."""
        return f"{self.source.architecture.name}.{key}" in self.source.file.fields


def model_config(source: GgufSource, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of config.json; `names` are transformers' names of the file's tensors."""
    read, fields, kind = Metadata(source), source.file.fields, source.model_type
    heads, hidden = int(read.number("attention.head_count")), int(read.number("embedding_length"))
    width = read.number("attention.key_length", read.number("rope.dimension_count", hidden / heads))
    turned = read.number("rope.dimension_count", width)
    if turned != width and kind != "phi3":
        raise source.refuse("the model's rope rotates only a part of each head.")
    sizes = {
        "architectures": [f"{source.architecture.kind}ForCausalLM"],
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": int(read.number("feed_forward_length")),
        "num_hidden_layers": int(read.number("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(read.number("attention.head_count_kv", heads)),
        "head_dim": int(width),
        "vocab_size": len(fields.get("tokenizer.ggml.tokens", [])),
        "max_position_embeddings": int(read.number("context_length")),
        "rms_norm_eps": short(read.number("attention.layer_norm_rms_epsilon")),
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in names,
        "mlp_bias": "blk.0.ffn_up.bias" in names,
        "tie_word_embeddings": "output.weight" not in names,
        "initializer_range": 0.02,
        "dtype": "float32",
    }
    special = {key: fields.get(f"tokenizer.ggml.{name}_token_id") for key, name in IDS.items()}
    return sizes | _own(read, int(width)) | _rope(read, int(width)) | special


def short(value: float) -> float:
    """Return the shortest decimal that is the same fp32: 1e-5, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _own(read: Metadata, width: int) -> dict[str, Any]:
    """Return what only some networks have: scales, windows, softcaps, layers without rope."""
    kind, architecture = read.source.model_type, read.source.architecture
    layers = int(read.number("block_count"))
    keys: dict[str, Any] = dict(architecture.constants)
    for key, name in architecture.numbers.items():
        if read.has(name):
            value = read.number(name)
            keys[key] = value if isinstance(value, int) else short(value)
    if kind == "phi3":
        keys["sliding_window"] = keys.get("sliding_window") or None
        keys["partial_rotary_factor"] = read.number("rope.dimension_count", width) / width
    if kind in WINDOWS_BEFORE_FULL:
        keys |= {"layer_types": layer_types(kind, layers), "query_pre_attn_scalar": width}
    if kind == "smollm3":
        keys["no_rope_layers"] = [int((i + 1) % NO_ROPE_EVERY != 0) for i in range(layers)]
        keys["no_rope_layer_interval"] = NO_ROPE_EVERY
    return keys


def _rope(read: Metadata, width: int) -> dict[str, Any]:
    theta = short(read.number("rope.freq_base", 10000.0))
    scaling = _scaling(read, theta, width)
    full = {"rope_type": "default", **scaling, "rope_theta": theta}
    if read.source.model_type == "gemma3_text":
        base = short(read.number("rope.freq_base_swa", LOCAL_BASE))
        local = {"rope_type": "default", "rope_theta": base}
        nested = {"full_attention": full, "sliding_attention": local}
        return {"rope_theta": theta, "rope_local_base_freq": base, "rope_parameters": nested}
    return {"rope_theta": theta} | ({"rope_scaling": scaling} if scaling else {})


def _scaling(read: Metadata, theta: float, width: int) -> dict[str, Any]:
    """Return the rope scaling that the file names, or whose factors it holds; {} for none."""
    source = read.source
    factors, long = source.rope_tensor("rope_freqs"), source.rope_tensor("rope_factors_long")
    if factors is not None:
        try:
            return find_llama3(factors, theta, width)
        except ValueError as error:
            raise source.refuse(f"{error}.") from None
    if long is not None:
        return _longrope(read, long)
    kind = read.text("rope.scaling.type", "none")
    original = "rope.scaling.original_context_length"
    match kind:
        case "none":
            return {}
        case "linear":
            return {"rope_type": "linear", "factor": short(read.number("rope.scaling.factor"))}
        case "yarn":
            return {
                "rope_type": "yarn",
                "factor": short(read.number("rope.scaling.factor")),
                "original_max_position_embeddings": int(read.number(original)),
            }
    raise source.refuse(f"rope scaling {kind!r} cannot be converted.")


def find_llama3(factors: np.ndarray[Any, Any], theta: float, width: int) -> dict[str, Any]:
    """Return the settings of Llama 3's scaling whose factors these are; {} for none.

    Raise ValueError where no such settings have them.
    """
    if np.allclose(factors, 1.0, rtol=CLOSE):
        return {}
    for original in ORIGINAL_LENGTHS:
        scaling = {
            "rope_type": "llama3",
            "factor": short(float(factors.max())),
            **LLAMA3,
            "original_max_position_embeddings": original,
        }
        wanted = llama3_factors(scaling, theta, width)
        if factors.shape == wanted.shape and np.allclose(factors, wanted, rtol=CLOSE):
            return scaling
    raise ValueError("the factors of its rope are not those of Llama 3's scaling")


def llama3_factors(
    scaling: Mapping[str, Any], theta: float, width: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return by what Llama 3.1's scaling divides each rope frequency, (width / 2,).

    llama.cpp reads them from a tensor of the file; without it, it would rotate unscaled.
    """
    waves = 2 * np.pi * theta ** (np.arange(0, width, 2, dtype=np.float64) / width)
    original = float(scaling["original_max_position_embeddings"])
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    smooth = np.clip((original / waves - low) / (high - low), 0.0, 1.0)
    factor = float(scaling["factor"])
    return np.asarray(1 / ((1 - smooth) / factor + smooth), dtype=np.float32)


def _longrope(read: Metadata, long: np.ndarray[Any, Any]) -> dict[str, Any]:
    source = read.source
    brief = source.rope_tensor("rope_factors_short")
    if brief is None:
        raise source.refuse("it has rope_factors_long without rope_factors_short.")
    original = int(read.number("rope.scaling.original_context_length"))
    return {
        "rope_type": "longrope",
        "long_factor": list(map(short, long.tolist())),
        "short_factor": list(map(short, brief.tolist())),
        "original_max_position_embeddings": original,
    }
