"""A tiny Llama with set answers: the prompt's last character decides which one it gives.

A bigram model: every layer writes zeros, so the next token depends on the last one alone. It makes
a real server or backend answer at once, predictably, and at any length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import orjson
import tiny_llama
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HIDDEN = 128
TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}\n{{ message['content'] }}{% if"
    " message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
)


def write(folder: Path, answers: Mapping[str, Sequence[str]], context: int = 2048) -> Path:
    """Write a model folder that gives `answers`.

    They map the prompt's last character to the pieces of the answer, one token each. An answer's
    pieces are distinct and belong to no other answer. After "∞" as the last piece it never stops.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer([piece for pieces in answers.values() for piece in pieces])
    vocab = tokenizer.get_vocab()
    chains = [
        [vocab[_byte(last)], *(vocab[piece] for piece in pieces)]
        for last, pieces in answers.items()
    ]
    _save_weights(folder, vocab, chains)
    config = {
        **tiny_llama.CONFIG,
        "num_hidden_layers": 1,
        "hidden_size": HIDDEN,
        "head_dim": HIDDEN // tiny_llama.HEADS,
        "vocab_size": len(vocab),
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": vocab["<|end|>"],
    }
    (folder / "config.json").write_bytes(orjson.dumps(config))
    (folder / "generation_config.json").write_bytes(
        orjson.dumps({"eos_token_id": [config["eos_token_id"]]})
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_bytes(orjson.dumps(settings))
    return folder


def _tokenizer(pieces: Sequence[str]) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|turn|>", "<|end|>"])
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    return tokenizer


def _byte(character: str) -> str:
    """Return ByteLevel's spelling of one ASCII character."""
    spelled: str = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    ).pre_tokenize_str(character)[0][0]
    return spelled


def _save_weights(folder: Path, vocab: Mapping[str, int], chains: Sequence[Sequence[int]]) -> None:
    embed = np.random.default_rng(0).choice([-1.0, 1.0], (len(vocab), HIDDEN)).astype(np.float32)
    head = np.zeros((len(vocab), HIDDEN), np.float32)
    for chain in chains:
        for now, then in zip(chain, [*chain[1:], vocab["<|end|>"]], strict=True):
            head[now if now == vocab.get("∞") else then] += embed[now]
    layer = "model.layers.0."
    size = HIDDEN // tiny_llama.HEADS
    zeros = {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (tiny_llama.KV_HEADS * size, HIDDEN),
        "self_attn.v_proj": (tiny_llama.KV_HEADS * size, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (tiny_llama.INNER, HIDDEN),
        "mlp.up_proj": (tiny_llama.INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, tiny_llama.INNER),
    }
    tensors: dict[str, np.ndarray] = {
        f"{layer}{name}.weight": np.zeros(shape, np.float32) for name, shape in zeros.items()
    }
    for norm in (f"{layer}input_layernorm", f"{layer}post_attention_layernorm", "model.norm"):
        tensors[f"{norm}.weight"] = np.ones(HIDDEN, np.float32)
    tensors |= {"model.embed_tokens.weight": embed, "lm_head.weight": head}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
