"""Tiny random models of the families people use, with their configs' traits, as a hub holds them.

`write(name, folder)` writes config.json in the hub's own keys (older families the older rope and
window keys), random weights under the hub's names, a tokenizer of bytes and a chat template. The
weights are so large that a wrong scale, window or norm shows. Needs torch and transformers. Left
out: the families' own tokenizers and templates, which tests of chat have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 320,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "pad_token_id": 0,
}
WINDOW = 16  # tokens, of the families that cut: rows of tests are longer
SILU: dict[str, Any] = {"hidden_act": "silu", "attention_bias": False}
SLIDING, FULL = "sliding_attention", "full_attention"


def _llama3(factor: float) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def _gemma(model_type: str, **more: Any) -> dict[str, Any]:
    act = {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"}
    scalar = {"query_pre_attn_scalar": 32} if model_type != "gemma" else {}
    base = {"model_type": model_type, "head_dim": 32, "rope_theta": 10000.0}
    return base | act | scalar | more


def _gemma3(**more: Any) -> dict[str, Any]:
    keys = {"num_hidden_layers": 6, "sliding_window": WINDOW, "sliding_window_pattern": 6}
    rope = {"rope_theta": 1e6, "rope_local_base_freq": 10000.0}
    return _gemma("gemma3_text", **rope, **(keys | more))


GEMMA3N = _gemma(
    "gemma3n_text",
    num_hidden_layers=4,
    intermediate_size=[128] * 4,
    rope_theta=1e6,
    rope_local_base_freq=10000.0,
    sliding_window=WINDOW,
    layer_types=[SLIDING, FULL, SLIDING, FULL],
    num_kv_shared_layers=2,
    activation_sparsity_pattern=[0.95, 0.0, 0.0, 0.0],
    vocab_size_per_layer_input=300,
    hidden_size_per_layer_input=16,
    altup_num_inputs=4,
    altup_active_idx=0,
    altup_coef_clip=120.0,
    altup_correct_scale=True,
    laurel_rank=8,
    final_logit_softcapping=30.0,
)
GEMMA4 = {
    "model_type": "gemma4_text",
    "head_dim": 16,
    "global_head_dim": 32,
    "hidden_activation": "gelu_pytorch_tanh",
    "num_hidden_layers": 4,
    "sliding_window": WINDOW,
    "layer_types": [SLIDING, FULL, SLIDING, FULL],
    "num_kv_shared_layers": 2,
    "use_double_wide_mlp": True,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": 320,
    "final_logit_softcapping": 30.0,
    "tie_word_embeddings": True,
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
        FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
    },
}
MINISTRAL3 = {
    "model_type": "ministral3",
    **SILU,
    "head_dim": 32,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 16.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    },
}
QWEN35 = {
    "model_type": "qwen3_5_text",
    **SILU,
    "head_dim": 32,
    "num_hidden_layers": 4,
    "full_attention_interval": 4,
    "layer_types": ["linear_attention"] * 3 + [FULL],
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e7,
        "partial_rotary_factor": 0.25,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    },
}
GRANITE = {
    **SILU,
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.015625,
    "residual_multiplier": 0.22,
    "logits_scaling": 2.0,
}
LFM2 = {
    "model_type": "lfm2",
    "norm_eps": 1e-5,
    "num_hidden_layers": 4,
    "conv_L_cache": 3,
    "conv_bias": False,
    "block_dim": 64,
    "block_multiple_of": 32,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": True,
}
PHI = {"model_type": "phi3", **SILU, "original_max_position_embeddings": 4096}

CONFIGS: dict[str, dict[str, Any]] = {
    "gemma1": _gemma("gemma", rope_theta=10000.0),
    "gemma2": _gemma(
        "gemma2",
        num_hidden_layers=3,
        sliding_window=WINDOW,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
    ),
    "gemma3": _gemma3(sliding_window=512),
    "gemma3-cut": _gemma3(),
    "gemma3-odd": _gemma3(hidden_size=96),  # its root is rounded by bfloat16
    "gemma3n": GEMMA3N,
    "gemma4": GEMMA4,
    "llama3.1": {
        "model_type": "llama",
        **SILU,
        "mlp_bias": False,
        "rope_theta": 500000.0,
        "rope_scaling": _llama3(8.0),
        "tie_word_embeddings": False,
    },
    "llama3.2": {
        "model_type": "llama",
        **SILU,
        "mlp_bias": False,
        "head_dim": 32,
        "rope_theta": 500000.0,
        "rope_scaling": _llama3(32.0),
        "tie_word_embeddings": True,
    },
    "deepseek-r1-llama": {
        "model_type": "llama",
        **SILU,
        "mlp_bias": False,
        "rope_theta": 500000.0,
        "rope_scaling": _llama3(8.0),
        "tie_word_embeddings": False,
    },
    "deepseek-r1-qwen": {
        "model_type": "qwen2",
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
    },
    "mistral-v0.1": {
        "model_type": "mistral",
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "sliding_window": WINDOW,
        "tie_word_embeddings": False,
    },
    "mistral-nemo": {
        "model_type": "mistral",
        "hidden_act": "silu",
        "head_dim": 32,
        "rope_theta": 1e6,
        "sliding_window": None,
        "tie_word_embeddings": False,
    },
    "ministral3": MINISTRAL3,
    "qwen2.5": {
        "model_type": "qwen2",
        "hidden_act": "silu",
        "rope_theta": 1e6,
        "use_sliding_window": False,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
    },
    "qwen3": {
        "model_type": "qwen3",
        **SILU,
        "head_dim": 32,
        "rope_theta": 1e6,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    },
    "qwen3-moe": {
        "model_type": "qwen3_moe",
        **SILU,
        "head_dim": 32,
        "rope_theta": 1e6,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "tie_word_embeddings": False,
    },
    "qwen3.5": QWEN35,
    "phi3": {**PHI, "rope_theta": 10000.0, "sliding_window": WINDOW},
    "phi4": {**PHI, "rope_theta": 250000.0, "sliding_window": None, "partial_rotary_factor": 0.75},
    "olmo2": {"model_type": "olmo2", **SILU, "rope_theta": 500000.0, "tie_word_embeddings": False},
    "olmo3": {
        "model_type": "olmo3",
        **SILU,
        "num_hidden_layers": 4,
        "rope_theta": 500000.0,
        "sliding_window": WINDOW,
        "layer_types": [SLIDING, SLIDING, SLIDING, FULL],
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 512,
            "attention_factor": 1.2079,
            "beta_fast": 32,
            "beta_slow": 1,
        },
        "tie_word_embeddings": False,
    },
    "granite3": {
        "model_type": "granite",
        **GRANITE,
        "mlp_bias": False,
        "rope_theta": 1e7,
        "tie_word_embeddings": True,
    },
    "granite4": {
        "model_type": "granitemoehybrid",
        **GRANITE,
        "num_hidden_layers": 4,
        "layer_types": ["mamba", "mamba", "attention", "mamba"],
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "shared_intermediate_size": 128,
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_n_groups": 1,
        "mamba_d_state": 16,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_chunk_size": 32,
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
        "position_embedding_type": "nope",
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    },
    "lfm2": {**LFM2, "full_attn_idxs": [1, 3], "rope_theta": 1e6, "block_ff_dim": 128},
    "lfm2.5": {
        **LFM2,
        "layer_types": ["conv", FULL, "conv", FULL],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "block_ff_dim": 128,
        "tie_embedding": True,
    },
    "smollm3": {
        "model_type": "smollm3",
        **SILU,
        "mlp_bias": False,
        "num_hidden_layers": 4,
        "no_rope_layers": [1, 1, 1, 0],
        "no_rope_layer_interval": 4,
        "rope_theta": 5e6,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    },
    "cohere2": {
        "model_type": "cohere2",
        **SILU,
        "num_hidden_layers": 4,
        "head_dim": 16,
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.5,
        "rope_theta": 50000.0,
        "sliding_window": WINDOW,
        "sliding_window_pattern": 4,
        "tie_word_embeddings": True,
    },
    "exaone4": {
        "model_type": "exaone4",
        **SILU,
        "num_hidden_layers": 4,
        "head_dim": 16,
        "rope_theta": 1e6,
        "rope_scaling": _llama3(16.0),
        "sliding_window": WINDOW,
        "sliding_window_pattern": "LLLG",
        "layer_types": [SLIDING, SLIDING, SLIDING, FULL],
        "tie_word_embeddings": True,
    },
    "glm4": {
        "model_type": "glm4",
        "hidden_act": "silu",
        "attention_bias": True,
        "head_dim": 32,
        "partial_rotary_factor": 0.5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    "gpt-oss": {
        "model_type": "gpt_oss",
        "hidden_act": "silu",
        "attention_bias": True,
        "head_dim": 32,
        "intermediate_size": 64,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": WINDOW,
        "layer_types": [SLIDING, FULL],
        "swiglu_limit": 7.0,
        "rope_theta": 150000.0,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
        },
        "tie_word_embeddings": False,
    },
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
WRAPPERS: dict[str, tuple[str, dict[str, Any]]] = {  # multimodal folder: its text part, the rest
    "gemma3-vision": (
        "gemma3-cut",
        {"model_type": "gemma3", "vision_config": SIGLIP, "mm_tokens_per_image": 4},
    ),
    "ministral3-vision": (
        "ministral3",
        {
            "model_type": "mistral3",
            "vision_config": {
                "model_type": "pixtral",
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
        },
    ),
    "qwen3.5-vision": (
        "qwen3.5",
        {
            "model_type": "qwen3_5",
            "tie_word_embeddings": True,
            "vision_config": {
                "model_type": "qwen3_5",
                "depth": 1,
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_heads": 2,
                "out_hidden_size": 64,
                "num_position_embeddings": 16,
            },
        },
    ),
}
FAMILIES: tuple[str, ...] = (*CONFIGS, *WRAPPERS)
"""Every family by name; the last ones are multimodal folders."""

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TURNS = (  # Gemma's form: no system role, users and models in turn
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant'"
    " else m['role']) + '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
FORMS = {  # template, special tokens (from id 256 on), the first token, those that end a turn
    "chatml": (
        CHATML,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        None,
        ("<|im_end|>", "<|endoftext|>"),
    ),
    "turns": (
        TURNS,
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        "<bos>",
        ("<end_of_turn>", "<eos>"),
    ),
}


def config_of(name: str) -> dict[str, Any]:
    """Return the family's config.json, in the keys that the hub's folders have."""
    if name not in WRAPPERS:
        return SMALL | CONFIGS[name] | {"torch_dtype": "float32"}
    text, rest = WRAPPERS[name]
    return {**rest, "text_config": config_of(text), "torch_dtype": "float32"}


def write(name: str, folder: Path, **more: Any) -> Path:
    """Write the family's model into `folder` and return it; `more` replaces keys of its config."""
    import torch
    import transformers

    keys = config_of(name) | more
    auto: Any = transformers.AutoModelForCausalLM
    if name in WRAPPERS:
        auto = transformers.AutoModelForImageTextToText
    model = auto.from_config(transformers.AutoConfig.for_model(**keys), dtype=torch.float32)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for path, weight in model.named_parameters():
            if weight.dim() >= 2:
                weight.normal_(0, 0.15, generator=draw)
            elif "norm" in path:
                weight.add_(torch.empty_like(weight).normal_(0, 0.2, generator=draw))
            elif path.endswith(("bias", "sinks")):
                weight.normal_(0, 0.2, generator=draw)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    described = {"architectures": [type(model).__name__], **keys}
    (folder / "config.json").write_text(json.dumps(described, indent=1))
    _write_tokenizer(folder, "turns" if name.startswith("gemma") else "chatml")
    return folder


def _write_tokenizer(folder: Path, form: str) -> None:
    """Write a tokenizer of bytes and the form's tokens, its template, and the ids of its ends."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    template, special, bos, ends = FORMS[form]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(special))
    made.save(str(folder / "tokenizer.json"))
    settings: Mapping[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": ends[0],
        "chat_template": template,
        **({"bos_token": bos} if bos else {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    stops = {"eos_token_id": [made.token_to_id(end) for end in ends]}
    (folder / "generation_config.json").write_text(json.dumps(stops))
