"""A Llama of a few thousand weights with a byte tokenizer, written without torch.

It serves tests that need no real model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
from safetensors.numpy import save_file

HIDDEN, LAYERS, HEADS, KV_HEADS, INNER, VOCAB = 64, 2, 4, 2, 96, 300
EOS = 257

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HIDDEN // HEADS,
    "vocab_size": VOCAB,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 256,
    "eos_token_id": EOS,
    "dtype": "float32",
}


def write(folder: Path, seed: int = 0) -> Path:
    """Write config and random weights into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return np.asarray(
            draw.standard_normal((rows, columns)) / np.sqrt(columns), dtype=np.float32
        )

    head = HIDDEN // HEADS
    tensors = {
        "model.embed_tokens.weight": matrix(VOCAB, HIDDEN) * 4,
        "model.norm.weight": np.ones(HIDDEN, np.float32),
    }
    for i in range(LAYERS):
        shapes = {
            "self_attn.q_proj": (HEADS * head, HIDDEN),
            "self_attn.k_proj": (KV_HEADS * head, HIDDEN),
            "self_attn.v_proj": (KV_HEADS * head, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HEADS * head),
            "mlp.gate_proj": (INNER, HIDDEN),
            "mlp.up_proj": (INNER, HIDDEN),
            "mlp.down_proj": (HIDDEN, INNER),
        }
        tensors |= {
            f"model.layers.{i}.{name}.weight": matrix(*shape) for name, shape in shapes.items()
        }
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{i}.{norm}.weight"] = np.ones(HIDDEN, np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_bytes(orjson.dumps(CONFIG))
    (folder / "generation_config.json").write_bytes(
        orjson.dumps({"eos_token_id": [EOS], "bos_token_id": 256})
    )
    return folder


TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}\n{{ message['content'] }}<|end|>{%"
    " endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


def write_chat(folder: Path, seed: int = 0) -> Path:
    """Do `write`, and add a byte tokenizer and a chat template.

    `<|turn|>` is token 256, `<|end|>` is EOS.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    write(folder, seed)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|turn|>", "<|end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_bytes(orjson.dumps(settings))
    return folder
