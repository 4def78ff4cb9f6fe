"""Convert a GGUF file to a model folder (safetensors, config, tokenizer), without torch.

Weights are stored in fp32, the exact values that the quantised blocks represent, one tensor in
memory at a time. Left out: every architecture but llama, qwen2 and qwen3, mixtures of experts, and
rope scaling other than linear.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from offapi.errors import ModelError
from offapi.models import expected_tensors, gguf_tokenizer
from offapi.models.expected_tensors import Shapes
from offapi.models.gguf_reader import Gguf, GgufTensor

WEIGHTS = "model.safetensors"
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
Array = np.ndarray[Any, np.dtype[np.float32]]
OTHERWISE = "Add the model from its safetensors folder instead."
OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
INNER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True)
class GgufSource:
    """An open GGUF file of a supported architecture."""

    file: Gguf
    architecture: str

    @property
    def license(self) -> str:
        """The licence that the file names, or ""."""
        return str(self.file.fields.get("general.license", ""))

    def bytes_after(self) -> int:
        """Return the size of the converted weights, in bytes."""
        return sum(4 * math.prod(tensor.shape) for tensor in self.file.tensors)

    def number(self, key: str, default: float | None = None) -> float:
        """Return the architecture's own metadata value `key`; ModelError when it is missing."""
        value = self.file.fields.get(f"{self.architecture}.{key}", default)
        if not isinstance(value, (int, float)):
            raise self.refuse(f"{self.architecture}.{key} must be one number.")
        return value

    def refuse(self, what: str) -> ModelError:
        """Return the error for what cannot be converted."""
        return ModelError(what, where=str(self.file.path), next_step=OTHERWISE)


def open_gguf(path: Path) -> GgufSource:
    """Open `path`. Raise ModelError when it is damaged or its architecture is not supported."""
    file = Gguf(path)
    source = GgufSource(file, str(file.fields.get("general.architecture")))
    if source.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise source.refuse(
            f"architecture {source.architecture!r} cannot be converted ({known} can)."
        )
    return source


def convert_gguf(source: GgufSource, folder: Path) -> None:
    """Write the model folder.

    Raise ModelError for what cannot be converted, OSError for a full disk.
    """
    try:
        config, shapes, files = _understand(source)
    except ModelError:
        raise
    except Exception as error:  # metadata of any type; tokenizers raises plain Exception
        raise source.refuse(
            f"the file's metadata is damaged ({type(error).__name__}: {error})."
        ) from error
    for name, content in files.items():
        (folder / name).write_bytes(content)
    _write(
        folder / WEIGHTS,
        shapes,
        (_values(tensor, source, config) for tensor in source.file.tensors),
    )


def _understand(source: GgufSource) -> tuple[dict[str, Any], Shapes, dict[str, bytes]]:
    """Return the config, the tensors' names and shapes in file order, and the small files."""
    config = _config(source)
    shapes = {_name(tensor.name, source): tensor.shape for tensor in source.file.tensors}
    if len(shapes) < len(source.file.tensors):
        raise source.refuse("two tensors have the same name.")
    expected_tensors.check_tensors(config, shapes, str(source.file.path))
    files = gguf_tokenizer.tokenizer_files(source.file.fields, str(source.file.path))
    return config, shapes, files | {"config.json": orjson.dumps(config, option=orjson.OPT_INDENT_2)}


def _config(source: GgufSource) -> dict[str, Any]:
    fields, number = source.file.fields, source.number
    names = {tensor.name for tensor in source.file.tensors}
    heads, hidden = int(number("attention.head_count")), int(number("embedding_length"))
    width = number("attention.key_length", number("rope.dimension_count", hidden / heads))
    if width != number("rope.dimension_count", width):
        raise source.refuse("the model's rope rotates only a part of each head.")
    config = {
        "architectures": [ARCHITECTURES[source.architecture]],
        "model_type": source.architecture,
        "hidden_size": hidden,
        "intermediate_size": int(number("feed_forward_length")),
        "num_hidden_layers": int(number("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(number("attention.head_count_kv", heads)),
        "head_dim": int(width),
        "vocab_size": len(fields.get("tokenizer.ggml.tokens", [])),
        "max_position_embeddings": int(number("context_length")),
        "rms_norm_eps": _short(number("attention.layer_norm_rms_epsilon")),
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in names,
        "tie_word_embeddings": "output.weight" not in names,
        "initializer_range": 0.02,
        "dtype": "float32",
    }
    ids = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    special = {key: fields.get(f"tokenizer.ggml.{name}_token_id") for key, name in ids.items()}
    known = {key: value for key, value in special.items() if value is not None}
    return config | _rope(source) | known


def _rope(source: GgufSource) -> dict[str, Any]:
    theta = {"rope_theta": _short(source.number("rope.freq_base", 10000.0))}
    kind = source.file.fields.get(f"{source.architecture}.rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise source.refuse(f"rope scaling {kind!r} cannot be converted.")
    if kind == "none":
        return theta
    return theta | {
        "rope_scaling": {
            "rope_type": "linear",
            "factor": _short(source.number("rope.scaling.factor")),
        }
    }


def _short(value: float) -> float:
    """Return the shortest decimal that is the same fp32: 1e-5, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _name(name: str, source: GgufSource) -> str:
    """Return transformers' name of the tensor."""
    if name in OUTER:
        return OUTER[name]
    match name.split("."):
        case ["blk", layer, inner, "weight" | "bias" as kind] if (
            layer.isdecimal() and inner in INNER
        ):
            return f"model.layers.{layer}.{INNER[inner]}.{kind}"
    what = (
        f"tensor {name!r} does not belong to a plain {source.architecture} model (experts, or"
        " scaled rope frequencies?)."
    )
    raise source.refuse(what)


def _values(tensor: GgufTensor, source: GgufSource, config: Mapping[str, Any]) -> Array:
    """Return the tensor in fp32, in transformers' layout."""
    try:
        array = source.file.array(tensor)
    except NotImplementedError as error:
        raise source.refuse(f"tensor {tensor.name!r}: {error}.") from None
    heads = {
        "attn_q": int(config["num_attention_heads"]),
        "attn_k": int(config["num_key_value_heads"]),
    }
    part = tensor.name.split(".")[2] if tensor.name.startswith("blk.") else ""
    if source.architecture == "llama" and part in heads:
        return deinterleave(array, heads[part])
    return array


def deinterleave(array: Array, heads: int) -> Array:
    """Undo `interleave`."""
    half = array.shape[0] // heads // 2
    return array.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(array.shape)


def interleave(array: Array, heads: int) -> Array:
    """Return rows of q or k as llama.cpp's llama wants them: the two rotary halves alternate."""
    half = array.shape[0] // heads // 2
    return array.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(array.shape)


def _write(path: Path, shapes: Shapes, arrays: Iterable[Array]) -> None:
    """Write a safetensors file of fp32 tensors, one at a time.

    The library's writer wants all of them in memory.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays:
            file.write(np.ascontiguousarray(array, dtype="<f4").data)
