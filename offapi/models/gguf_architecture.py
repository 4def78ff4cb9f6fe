"""What llama.cpp calls a network, and how its file holds what config.json and safetensors hold.

Used both ways: to convert a GGUF file, and to write one. Tensors' names come from the `gguf`
package's own map. Left out: experts, recurrent layers, and what llama.cpp has no name for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Architecture:
    """llama.cpp's name of a network, and in what its tensors and metadata differ.

    `interleaved`: its rope turns neighbouring rows of a head, so the rows of q and k are reordered.
    `shifted_norms`: the file holds 1 + weight, which transformers adds while it computes.
    `numbers` are keys of config.json and of the file's metadata.
    """

    name: str
    kind: str  # transformers' class, without "ForCausalLM"
    interleaved: bool = False
    shifted_norms: bool = False
    numbers: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, object] = field(default_factory=dict)  # which no metadata name


WINDOW = {"sliding_window": "attention.sliding_window"}
SOFTCAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
SCALES = {
    "logits_scaling": "logit_scale",
    "residual_multiplier": "residual_scale",
    "embedding_multiplier": "embedding_scale",
    "attention_multiplier": "attention.scale",
}
GELU = {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"}
ARCHITECTURES = {
    "llama": Architecture("llama", "Llama", interleaved=True),
    "mistral": Architecture("llama", "Mistral", interleaved=True),
    "smollm3": Architecture("smollm3", "SmolLM3", interleaved=True),
    "qwen2": Architecture("qwen2", "Qwen2"),
    "qwen3": Architecture("qwen3", "Qwen3"),
    "phi3": Architecture("phi3", "Phi3", numbers=WINDOW),
    "olmo2": Architecture("olmo2", "Olmo2"),
    "granite": Architecture("granite", "Granite", interleaved=True, numbers=SCALES),
    "gemma2": Architecture(
        "gemma2", "Gemma2", shifted_norms=True, numbers=WINDOW | SOFTCAPS, constants=GELU
    ),
    "gemma3_text": Architecture(
        "gemma3", "Gemma3", shifted_norms=True, numbers=WINDOW, constants=GELU
    ),
}
"""By transformers' model type."""
NO_ROPE_EVERY = 4  # llama.cpp's smollm3 has no rope in each fourth layer, whatever a file says
WINDOWS_BEFORE_FULL = {"gemma2": 1, "gemma3_text": 5}  # layers in a window before each without
LOCAL_BASE = 10_000.0  # rope base of Gemma 3's layers in a window


def model_type_of(name: str) -> str | None:
    """Return transformers' model type for llama.cpp's name; None for one that is not known."""
    return next((kind for kind, each in ARCHITECTURES.items() if each.name == name), None)


def layer_types(kind: str, layers: int) -> list[str]:
    """Return which layers of a Gemma attend in a window, as llama.cpp computes them."""
    every = WINDOWS_BEFORE_FULL[kind] + 1
    full = "full_attention"
    return [full if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
