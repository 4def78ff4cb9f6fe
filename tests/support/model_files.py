"""Small model folders and files as a user might bring them: a tiny Llama with tokenizer, and GGUF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import orjson
import tiny_llama
from llama_shapes import llama_shapes
from safetensors.numpy import load_file, save_file
from tokenizers import pre_tokenizers


def alphabet() -> list[str]:
    """Return the 256 characters that stand for bytes in byte-level BPE."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def folder(path: Path, **settings: Any) -> Path:
    """Write a complete model folder; `settings` change config.json, and None removes a key."""
    tiny_llama.write_chat(path)
    config = {
        key: value for key, value in (tiny_llama.CONFIG | settings).items() if value is not None
    }
    (path / "config.json").write_bytes(orjson.dumps(config))
    return path


def random_folder(path: Path, **settings: Any) -> Path:
    """Write `folder` with random weights for the tensors that its config describes."""
    folder(path, **settings)
    draw = np.random.default_rng(0)
    shapes = llama_shapes(orjson.loads((path / "config.json").read_bytes()))
    tensors = {}
    for name, shape in shapes.items():
        scale = 2.0 if "embed" in name else shape[-1] ** -0.5 if len(shape) > 1 else 0.2
        tensors[name] = (draw.standard_normal(shape) * scale + ("norm" in name)).astype(np.float32)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def write_gguf(
    path: Path, architecture: str, fields: Mapping[str, Any] | None = None, q8: bool = False
) -> Path:
    """Write the tiny model as llama.cpp's converter would.

    `fields` change its tokenizer's metadata.
    """
    weights = load_file(
        tiny_llama.write(path.parent / f"{path.stem}-weights") / "model.safetensors"
    )
    head, draw = tiny_llama.HIDDEN // tiny_llama.HEADS, np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(tiny_llama.LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(tiny_llama.HIDDEN)
    writer.add_feed_forward_length(tiny_llama.INNER)
    writer.add_head_count(tiny_llama.HEADS)
    writer.add_head_count_kv(tiny_llama.KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100000.0)
    writer.add_rope_dimension_count(head)
    if architecture == "qwen3":
        writer.add_key_length(head)
        writer.add_value_length(head)
    add_tokenizer(writer, dict(fields or {}))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, tiny_llama.LAYERS)
    for name, value in weights.items():
        heads = {"q_proj": tiny_llama.HEADS, "k_proj": tiny_llama.KV_HEADS}.get(
            name.split(".")[-2], 0
        )
        if architecture == "llama" and heads:
            value = value.reshape(heads, 2, head // 2, -1).swapaxes(1, 2).reshape(value.shape)
        kind = (
            gguf.GGMLQuantizationType.Q8_0
            if q8 and value.ndim == 2
            else gguf.GGMLQuantizationType.F32
        )
        writer.add_tensor(
            str(names.get_name(name, (".weight",))), gguf.quantize(value, kind), raw_dtype=kind
        )
    for i in range(tiny_llama.LAYERS):
        extra = (
            {"attn_q_norm.weight": head, "attn_k_norm.weight": head}
            if architecture == "qwen3"
            else {}
        )
        if architecture == "qwen2":
            keys = tiny_llama.KV_HEADS * head
            extra = {"attn_q.bias": tiny_llama.HIDDEN, "attn_k.bias": keys, "attn_v.bias": keys}
        for name, size in extra.items():
            writer.add_tensor(f"blk.{i}.{name}", draw.uniform(0.5, 1.5, size).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: gguf.GGUFWriter, fields: dict[str, Any]) -> None:
    """Add 256 byte tokens, control tokens, and merges for "he", "12" and " "."""
    special = ["<|turn|>", "<|end|>", "<|im_end|>", "<think>"]
    merges = ["h e", "1 2", "Ġ Ġ"]
    words = alphabet() + [merge.replace(" ", "") for merge in merges] + special
    words += [f"[PAD{i}]" for i in range(len(words), tiny_llama.VOCAB)]
    kinds = [
        {"<think>": 4}.get(word, 3 if word in special else 5 if word.startswith("[PAD") else 1)
        for word in words
    ]
    writer.add_tokenizer_model(fields.pop("model", "gpt2"))
    writer.add_tokenizer_pre(fields.pop("pre", "smollm"))
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(words.index("<|turn|>"))
    writer.add_eos_token_id(words.index("<|end|>"))
    writer.add_chat_template(fields.pop("template", tiny_llama.TEMPLATE))
    if fields.pop("add_bos", False):
        writer.add_add_bos_token(True)
    assert not fields
