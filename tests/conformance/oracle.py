"""The tiny Llama in NumPy, float64, written from the papers alone: the reference for both backends.

RMSNorm (arXiv 1910.07467), rotary positions (2104.09864), grouped heads (2305.13245), SwiGLU
(2002.05202), LoRA (2106.09685), and the truncations of sampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import tiny_llama
from numpy.typing import NDArray
from safetensors.numpy import load_file

from offapi.adapter import parameter
from offapi.backend import Sampling
from offapi.episodes import Episode
from offapi.model_spec import LoraSpec

Array = NDArray[np.float64]
# Nats that float32 may be off: at most 4e-6 was measured on a CPU. `conftest` allows a GPU more.
CLOSE = 1e-5
SHAPE = LoraSpec(rank=4, alpha=6.0)  # of the adapters of these tests
LINEARS = {
    "self_attn.q_proj": (tiny_llama.HIDDEN, tiny_llama.HIDDEN),
    "self_attn.k_proj": (
        tiny_llama.HIDDEN // tiny_llama.HEADS * tiny_llama.KV_HEADS,
        tiny_llama.HIDDEN,
    ),
    "self_attn.v_proj": (
        tiny_llama.HIDDEN // tiny_llama.HEADS * tiny_llama.KV_HEADS,
        tiny_llama.HIDDEN,
    ),
    "self_attn.o_proj": (tiny_llama.HIDDEN, tiny_llama.HIDDEN),
    "mlp.gate_proj": (tiny_llama.INNER, tiny_llama.HIDDEN),
    "mlp.up_proj": (tiny_llama.INNER, tiny_llama.HIDDEN),
    "mlp.down_proj": (tiny_llama.HIDDEN, tiny_llama.INNER),
}


def adapter_shapes(rank: int) -> dict[str, tuple[int, int]]:
    """Return PEFT's parameter names with their shapes, for LoRA on every linear."""
    shapes = {}
    for layer in range(tiny_llama.LAYERS):
        for name, (outputs, inputs) in LINEARS.items():
            module = f"model.layers.{layer}.{name}"
            shapes |= {
                parameter(module, "A"): (rank, inputs),
                parameter(module, "B"): (outputs, rank),
            }
    return shapes


@dataclass(frozen=True)
class Llama:
    """Weights by their names in the file, and the config."""

    weights: Mapping[str, Array]
    config: Mapping[str, Any]

    def logits(
        self, tokens: Sequence[int], adapter: Mapping[str, Any] | None = None, scale: float = 0.0
    ) -> Array:
        """Return the logits after each token, shape (T, V); `scale` is the adapter's alpha / rank."""
        h = self.weights["model.embed_tokens.weight"][list(tokens)]
        for layer in range(tiny_llama.LAYERS):
            at = f"model.layers.{layer}."

            def linear(x: Array, name: str, at: str = at) -> Array:
                y = x @ self.weights[f"{at}{name}.weight"].T
                if adapter:
                    a, b = (
                        np.asarray(adapter[parameter(at + name, m)], dtype=np.float64) for m in "AB"
                    )
                    y = y + scale * (x @ a.T @ b.T)
                return y

            x = self.norm(h, f"{at}input_layernorm")
            q, k, v = (self.heads(linear(x, f"self_attn.{n}_proj")) for n in "qkv")
            h = h + linear(self.attend(self.turn(q), self.turn(k), v), "self_attn.o_proj")
            x = self.norm(h, f"{at}post_attention_layernorm")
            gate = linear(x, "mlp.gate_proj")
            h = h + linear(gate / (1 + np.exp(-gate)) * linear(x, "mlp.up_proj"), "mlp.down_proj")
        result: Array = self.norm(h, "model.norm") @ self.weights["model.embed_tokens.weight"].T
        return result

    def norm(self, x: Array, name: str) -> Array:
        size = np.sqrt((x**2).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        return x / size * self.weights[f"{name}.weight"]

    def heads(self, x: Array) -> Array:
        """Reshape (T, heads * width) to (heads, T, width)."""
        return x.reshape(len(x), -1, tiny_llama.HIDDEN // tiny_llama.HEADS).swapaxes(0, 1)

    def turn(self, x: Array) -> Array:
        """Rotate the pairs (i, i + width / 2) by position * base^(-2 i / width)."""
        half = x.shape[-1] // 2
        angles = np.arange(x.shape[1])[:, None] * self.config["rope_theta"] ** -(
            np.arange(half) / half
        )
        first, second = x[..., :half], x[..., half:]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def attend(self, q: Array, k: Array, v: Array) -> Array:
        each = tiny_llama.HEADS // tiny_llama.KV_HEADS
        k, v = np.repeat(k, each, axis=0), np.repeat(v, each, axis=0)
        scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
        scores = np.where(np.tri(scores.shape[-1], dtype=bool), scores, -np.inf)
        return (np.exp(log_softmax(scores)) @ v).swapaxes(0, 1).reshape(q.shape[1], -1)


def load(folder: Path) -> Llama:
    """Read the model that `tiny_llama.write` wrote."""
    weights = {
        name: array.astype(np.float64)
        for name, array in load_file(folder / "model.safetensors").items()
    }
    return Llama(weights, orjson.loads((folder / "config.json").read_bytes()))


def log_softmax(x: Array) -> Array:
    """Return the log softmax over the last axis."""
    x = x - x.max(-1, keepdims=True)
    result: Array = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return result


def masked(logits: Array, episode: Episode, temperature: float = 1.0) -> Array:
    """Return the logprobs of the episode's masked tokens, from the logits after each of its tokens."""
    logprobs = log_softmax(logits / temperature)
    return np.array(
        [logprobs[t - 1, token] for t, token in enumerate(episode.tokens) if episode.mask[t]]
    )


def sampled(logits: Array, sampling: Sampling) -> Array:
    """Return the logprobs (V,) of the distribution that is sampled, -inf outside the sampling mask."""
    logits = logits / sampling.temperature
    if sampling.top_k:
        logits = np.where(logits >= np.sort(logits)[-sampling.top_k], logits, -np.inf)
    if sampling.top_p < 1:
        order = np.argsort(-logits, kind="stable")
        p = np.exp(log_softmax(logits))[order]
        logits[order[np.cumsum(p) - p >= sampling.top_p]] = -np.inf
    p = np.exp(log_softmax(logits))
    return log_softmax(np.where(p >= sampling.min_p * p.max(), logits, -np.inf))
