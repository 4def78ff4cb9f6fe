"""Small model folders and files as a user might bring them:
the tiny Llama with a tokenizer, and its like in GGUF.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import orjson
import tiny_llama
from safetensors.numpy import load_file, save_file
from tokenizers import pre_tokenizers

from offapi.models import expected_tensors


def alphabet() -> list[str]:
    """The 256 characters that stand for bytes in byte-level BPE."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def folder(path: Path, **settings: Any) -> Path:
    """A complete model folder; `settings` change config.json, None removes a key."""
    tiny_llama.write_chat(path)
    config = {
        key: value for key, value in (tiny_llama.CONFIG | settings).items() if value is not None
    }
    (path / "config.json").write_bytes(orjson.dumps(config))
    return path


def random_folder(path: Path, **settings: Any) -> Path:
    """`folder` with random weights for whatever tensors its config describes."""
    folder(path, **settings)
    draw = np.random.default_rng(0)
    shapes = expected_tensors.expected_shapes(
        orjson.loads((path / "config.json").read_bytes()), str(path)
    )
    tensors = {}
    for name, shape in shapes.items():
        scale = 2.0 if "embed" in name else shape[-1] ** -0.5 if len(shape) > 1 else 0.2
        tensors[name] = (draw.standard_normal(shape) * scale + ("norm" in name)).astype(np.float32)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def write_gguf(
    path: Path, architecture: str, fields: Mapping[str, Any] | None = None, q8: bool = False
) -> Path:
    """The tiny model as llama.cpp's converter would
    write it; `fields` change its tokenizer's metadata.
    """
    weights = load_file(
        tiny_llama.write(path.parent / f"{path.stem}-weights") / "model.safetensors"
    )
    head, draw = tiny_llama.HIDDEN // tiny_llama.HEADS, np.random.default_rng(1)
    out = gguf.GGUFWriter(path, architecture)
    out.add_block_count(tiny_llama.LAYERS)
    out.add_context_length(512)
    out.add_embedding_length(tiny_llama.HIDDEN)
    out.add_feed_forward_length(tiny_llama.INNER)
    out.add_head_count(tiny_llama.HEADS)
    out.add_head_count_kv(tiny_llama.KV_HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_freq_base(100000.0)
    out.add_rope_dimension_count(head)
    if architecture == "qwen3":
        out.add_key_length(head)
        out.add_value_length(head)
    add_tokenizer(out, dict(fields or {}))
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
        out.add_tensor(
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
            out.add_tensor(f"blk.{i}.{name}", draw.uniform(0.5, 1.5, size).astype(np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def add_tokenizer(out: gguf.GGUFWriter, fields: dict[str, Any]) -> None:
    """256 byte tokens, control tokens, and merges for "he", "12" and "  "."""
    special = ["<|turn|>", "<|end|>", "<|im_end|>", "<think>"]
    merges = ["h e", "1 2", "Ġ Ġ"]
    words = alphabet() + [merge.replace(" ", "") for merge in merges] + special
    words += [f"[PAD{i}]" for i in range(len(words), tiny_llama.VOCAB)]
    kinds = [
        {"<think>": 4}.get(word, 3 if word in special else 5 if word.startswith("[PAD") else 1)
        for word in words
    ]
    out.add_tokenizer_model(fields.pop("model", "gpt2"))
    out.add_tokenizer_pre(fields.pop("pre", "smollm"))
    out.add_token_list(words)
    out.add_token_types(kinds)
    out.add_token_merges(merges)
    out.add_bos_token_id(words.index("<|turn|>"))
    out.add_eos_token_id(words.index("<|end|>"))
    out.add_chat_template(fields.pop("template", tiny_llama.TEMPLATE))
    if fields.pop("add_bos", False):
        out.add_add_bos_token(True)
    assert not fields
