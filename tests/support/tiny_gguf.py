"""Tiny models that llama.cpp opens: each architecture, with a tokenizer whose split has a name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from llama_shapes import llama_shapes
from safetensors.numpy import save_file

from offapi.models import gguf_tokenizer
from offapi.models.normal_config import normalise_config

WORDS = "the total of invoice it's don't 1234567 is due in EUR and USD, please pay now " * 40
# llama.cpp knows the usual name of the second by its text, whatever the file says.
TURN, END, TEXT = "<|im_start|>", "<|turn_end|>", "<|endoftext|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|turn_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% set ns = namespace(text='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set ns.text = message['content'] + '\n\n' %}"
    "{% elif message['role'] == 'user' %}[INST] {{ ns.text + message['content'] }} [/INST]"
    "{% set ns.text = '' %}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
NO_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}<|im_start|>"
    "{{ 'model' if message['role'] == 'assistant' else 'user' }}\n{{ message['content'] }}"
    "<|turn_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
BASE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 50000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
    "dtype": "float32",
}
CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}


def write(
    folder: Path, kind: str = "llama", split: str = "smollm", seed: int = 0, **settings: Any
) -> Path:
    """Write a model of that type into `folder` and return it; `settings` go to its config."""
    folder.mkdir(parents=True, exist_ok=True)
    template = settings.pop("chat_template", None)
    vocabulary = write_tokenizer(folder, split)
    if template:
        set_template(folder, template)
    return write_network(folder, kind, vocabulary + 3, seed, **settings)


def set_template(folder: Path, template: str) -> None:
    """Give the model in `folder` another chat template."""
    path = folder / "tokenizer_config.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"chat_template": template}))


def write_network(folder: Path, kind: str, vocabulary: int, seed: int, **settings: Any) -> Path:
    """Write config and random weights; a few rows of the embedding have no token."""
    config = {"model_type": kind, "architectures": [CLASSES[kind]], "vocab_size": vocabulary}
    config |= BASE | settings
    if kind == "mistral":
        config["sliding_window"] = None
    shapes = llama_shapes(config)
    config = normalise_config(config, shapes, str(folder))
    save_file(_weights(shapes, seed), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_bytes(orjson.dumps(config))
    return folder


def _weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Draw weights large enough that each mistake in them moves logprobs by far."""
    draw = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        values = draw.standard_normal(shape) / np.sqrt(shape[-1])
        if name.endswith("norm.weight"):
            values = 1 + 0.2 * draw.standard_normal(shape)
        elif "embed" in name or name.endswith(".bias"):
            values *= 2
        tensors[name] = np.asarray(values, dtype=np.float32)
    return tensors


def write_tokenizer(folder: Path, split: str) -> int:
    """Write a tokenizer and its settings; return its number of tokens."""
    if split.startswith("sentencepiece"):
        return _write_sentencepiece(folder, split.partition("-")[2] or "everywhere")
    return _write_byte_level(folder, split)


def _write_sentencepiece(folder: Path, prefixed: str) -> int:
    """Write a tokenizer as Llama 2's and Mistral's: spaces are letters, other signs are bytes.

    Text begins with a space after each special token ("everywhere"), as in the older files, or only
    at its start ("first"), or nowhere ("never"), as in Gemma's.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = _pieces()
    places = {piece: i for i, piece in enumerate(vocabulary)}
    pairs = [
        (places[piece], piece[:i], piece[i:])
        for piece in vocabulary
        for i in range(1, len(piece))
        if piece[:i] in places and piece[i:] in places and not piece.startswith("<")
    ]
    merges = [(first, second) for _, first, second in sorted(pairs)]
    tokenizer = Tokenizer(
        models.BPE(places, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    replace = normalizers.Replace(" ", "▁")
    if prefixed == "everywhere":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    elif prefixed == "never":
        tokenizer.normalizer = replace
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "chat_template": MISTRAL,
    }
    write_settings(folder, settings, [2])
    return len(vocabulary)


def _pieces() -> list[str]:
    """Return special tokens, bytes, and pieces of WORDS, the frequent ones first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=120, show_progress=False)
    learner.train_from_iterator([WORDS], trainer)
    learned = sorted(learner.get_vocab().items(), key=lambda entry: entry[1])
    merged = [piece for piece, _ in learned if len(piece) > 1]
    letters = [piece for piece, _ in learned if len(piece) == 1]
    codes = [f"<0x{i:02X}>" for i in range(256)]
    return ["<unk>", "<s>", "</s>", *codes, *merged, *letters]


def _write_byte_level(folder: Path, split: str) -> int:
    """Write a byte-level tokenizer with merges and that split; return its number of tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=split in gguf_tokenizer.WHOLE_WORDS))
    gguf_tokenizer.set_split(tokenizer, split)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[TEXT, TURN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": TURN,
        "eos_token": END,
        "chat_template": TEMPLATE,
    }
    write_settings(folder, settings, [2, 0])
    return int(tokenizer.get_vocab_size())


def write_settings(folder: Path, settings: Mapping[str, Any], ends: list[int]) -> None:
    """Write the tokenizer's settings, and the ids that end a turn."""
    (folder / "tokenizer_config.json").write_bytes(orjson.dumps(settings))
    (folder / "generation_config.json").write_bytes(orjson.dumps({"eos_token_id": ends}))
