"""Convert a GGUF file to a model folder (safetensors, config, tokenizer), without torch.

Weights are stored in fp32, the exact values that the quantised blocks represent, one tensor in
memory at a time. Left out: architectures that `gguf_architecture` does not know, and mixtures of
experts.
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
from offapi.models import gguf_config, gguf_tokenizer
from offapi.models.gguf_architecture import ARCHITECTURES, Architecture, model_type_of
from offapi.models.gguf_reader import Gguf, GgufTensor
from offapi.text.display import plural

WEIGHTS = "model.safetensors"
Shapes = Mapping[str, tuple[int, ...]]
Array = np.ndarray[Any, np.dtype[np.float32]]
OTHERWISE = "Add the model from its safetensors folder instead."
# transformers' names of what a layer consists of; which of them a tensor is says the package's map.
INNER = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "self_attn.qkv_proj",
    "self_attn.q_norm",
    "self_attn.k_norm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "mlp.gate_up_proj",
)
OUTER = ("model.embed_tokens", "model.norm", "lm_head")
ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


@dataclass(frozen=True)
class GgufSource:
    """An open GGUF file of a supported architecture."""

    file: Gguf
    model_type: str

    @property
    def architecture(self) -> Architecture:
        """What llama.cpp calls the network."""
        return ARCHITECTURES[self.model_type]

    @property
    def tensors(self) -> tuple[GgufTensor, ...]:
        """The tensors that are weights: those of rope are settings."""
        return tuple(each for each in self.file.tensors if each.name not in ROPE_TENSORS)

    @property
    def license(self) -> str:
        """The licence that the file names, or ""."""
        return str(self.file.fields.get("general.license", ""))

    def bytes_after(self) -> int:
        """Return the size of the converted weights, in bytes."""
        return sum(4 * math.prod(tensor.shape) for tensor in self.tensors)

    def rope_tensor(self, name: str) -> Array | None:
        """Return the numbers of a tensor that is a setting of rope; None without it."""
        found = [each for each in self.file.tensors if each.name == f"{name}.weight"]
        return self.file.array(found[0]) if found else None

    def refuse(self, what: str) -> ModelError:
        """Return the error for what cannot be converted."""
        return ModelError(what, where=str(self.file.path), next_step=OTHERWISE)


def open_gguf(path: Path) -> GgufSource:
    """Open `path`. Raise ModelError when it is damaged or its architecture is not supported."""
    file = Gguf(path)
    named = str(file.fields.get("general.architecture"))
    kind = model_type_of(named)
    if kind is None:
        known = ", ".join(dict.fromkeys(each.name for each in ARCHITECTURES.values()))
        raise ModelError(
            f"architecture {named!r} cannot be converted ({known} can).",
            where=str(path),
            next_step=OTHERWISE,
        )
    return GgufSource(file, kind)


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
        (_values(tensor, source, config) for tensor in source.tensors),
    )


def _understand(source: GgufSource) -> tuple[dict[str, Any], Shapes, dict[str, bytes]]:
    """Return the config, the tensors' names and shapes in file order, and the small files."""
    files = gguf_tokenizer.tokenizer_files(source.file.fields, str(source.file.path))
    names = transformers_names(source)
    config = gguf_config.model_config(source, names)
    shapes = {names[tensor.name]: tensor.shape for tensor in source.tensors}
    if len(shapes) < len(source.tensors):
        raise source.refuse("two tensors have the same name.")
    return config, shapes, files | {"config.json": orjson.dumps(config, option=orjson.OPT_INDENT_2)}


def transformers_names(source: GgufSource) -> dict[str, str]:
    """Return transformers' name of each tensor that is a weight; ModelError for an unknown one."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    numbers = {name: number for number, name in MODEL_ARCH_NAMES.items()}
    layers = int(source.file.fields[f"{source.architecture.name}.block_count"])
    if not 0 < layers <= len(source.tensors):
        raise source.refuse(f"it claims {plural(layers, 'layer')}, more than it has tensors.")
    known = get_tensor_name_map(numbers[source.architecture.name], layers)
    fused = not any(".ffn_gate." in tensor.name for tensor in source.tensors)
    ours = [*OUTER, *(f"model.layers.{i}.{name}" for i in range(layers) for name in INNER)]
    places = {}
    for name in ours:
        place = known.get_name(name)
        # up_proj and gate_up_proj have one name: it is the latter where no gate stands apart
        if place is not None and name.endswith("up_proj"):
            place = place if name.endswith("gate_up_proj") == fused else None
        if place is not None:
            places[place] = name
    found = {}
    for tensor in source.tensors:
        place, _, kind = tensor.name.rpartition(".")
        if place not in places or kind not in ("weight", "bias"):
            raise source.refuse(
                f"tensor {tensor.name!r} does not belong to a plain {source.architecture.name}"
                " model (experts?)."
            )
        found[tensor.name] = f"{places[place]}.{kind}"
    return found


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
    if source.architecture.interleaved and part in heads:
        if array.shape[0] % (2 * heads[part]):
            raise source.refuse(f"tensor {tensor.name!r} does not have {heads[part]} heads.")
        return deinterleave(array, heads[part])
    shifted = source.architecture.shifted_norms and tensor.name.endswith("norm.weight")
    return array - np.float32(1.0) if shifted else array


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
