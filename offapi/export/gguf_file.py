"""Write a GGUF file: metadata, then each tensor as it comes.

Left out: several parts of one model, and metadata that runtimes do not compute with, but a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from offapi.chat.chat import Chat
from offapi.episodes import Floats
from offapi.export.gguf_fields import find_architecture, network_fields, rope_factors
from offapi.export.gguf_tensors import Shapes, TensorPlan, plan_tensors, write_tensors
from offapi.export.gguf_vocabulary import vocabulary_fields

QUANTIZATION_VERSION = 2  # of ggml's blocks
ROPE_FACTORS = "rope_freqs.weight"


def write_gguf(
    path: Path,
    config: Mapping[str, Any],
    chat: Chat,
    shapes: Shapes,
    tensors: Iterable[tuple[str, Floats]],
    kind: str,
    name: str,
) -> None:
    """Write the model to `path`.

    `config` is in its normal form; `tensors` (fp32) come in the order of `shapes`; `kind` is one of
    KINDS. Raise ModelError for what llama.cpp would compute differently.
    """
    from gguf import GGUFWriter

    where = str(path)
    architecture = find_architecture(config, where)
    plans = plan_tensors(config, shapes, architecture, kind, where)
    writer = GGUFWriter(path, architecture.name)
    try:
        writer.add_name(name)
        writer.add_file_type(_file_type(kind))
        writer.add_quantization_version(QUANTIZATION_VERSION)
        for key, value in network_fields(config, where).items():
            _add(writer, f"{architecture.name}.{key}", value)
        rows = shapes["model.embed_tokens.weight"][0]
        for key, value in vocabulary_fields(chat, rows, where).items():
            _add(writer, f"tokenizer.{key}", value)
        if (factors := rope_factors(config)) is not None:
            plans = {ROPE_FACTORS: TensorPlan(ROPE_FACTORS, factors.shape, "f32")} | plans
            tensors = chain([(ROPE_FACTORS, factors)], tensors)
        write_tensors(writer, plans, tensors, where)
    finally:
        writer.close()


def _file_type(kind: str) -> int:
    from gguf import LlamaFileType

    every = "ALL" if kind == "f32" else "MOSTLY"
    return int(LlamaFileType[f"{every}_{kind.upper()}"])


def _add(writer: Any, key: str, value: Any) -> None:
    """Add a value of metadata; GGUF's integers are unsigned, but for lists of token types."""
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)
