"""Text models that mlx-lm has inside of others, or with other layers than their folders.

Their modules have transformers' names. Left out: the arithmetic, which is mlx-lm's.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx_lm.models import gpt_oss
from mlx_lm.models.cache import ConcatenateKVCache
from mlx_lm.models.gemma3n import Gemma3nAltUp, LanguageModel, TextConfig, logit_softcap
from mlx_lm.models.granitemoehybrid import (
    GraniteMoeHybridLayer,
    GraniteMoeHybridSharedMLP,
    Model,
    ModelArgs,
)

Weights = dict[str, mx.array]
SHARED = ("k_proj", "v_proj", "k_norm")


class _InputEmbedding(Embedding):
    """An embedding whose `as_linear` leaves hidden states as they are, and that stays in float."""

    to_quantized = None  # type: ignore[assignment]

    def as_linear(self, x: mx.array) -> mx.array:
        """Return `x`: the head is `Gemma3nText`'s."""
        return x


class _AltUp(Gemma3nAltUp):
    """The same, without writing into its linears, which may be adapted, and without their clipping.

    transformers clips them in training alone.
    """

    def predict(self, x: mx.array) -> mx.array:
        """Return what the layer predicts for every stream, (streams, R, L, D)."""
        count = self.config.altup_num_inputs
        modalities = self.compute_router_modalities(x[self.config.altup_active_idx])
        coefficients = self.prediction_coefs(modalities)
        coefficients = coefficients.reshape(*modalities.shape[:-1], count, count).swapaxes(-1, -2)
        streams = x.astype(mx.float32)
        mixed = (streams.transpose(1, 2, 3, 0) @ coefficients).transpose(3, 0, 1, 2)
        predicted: mx.array = (mixed + streams).astype(x.dtype)
        return predicted

    def correct(self, predictions: mx.array, activated: mx.array) -> mx.array:
        """Return the streams, corrected by what the layer made of the active one."""
        coefficients = self.correction_coefs(self.compute_router_modalities(activated)) + 1.0
        innovation = activated - predictions[self.config.altup_active_idx]
        corrected: mx.array = innovation[None] * coefficients.moveaxis(2, 0)[..., None]
        return (corrected + predictions).astype(activated.dtype)


class _Headless(LanguageModel):
    """Gemma 3n without its head. Layers that share keys and values have none of their own."""

    def __init__(self, args: TextConfig) -> None:
        super().__init__(args)
        self.embed_tokens = _InputEmbedding(args.vocab_size, args.hidden_size)
        self.final_logit_softcapping: Any = None
        for layer in self.layers:
            layer.altup.__class__ = _AltUp
        for layer in self.layers[self.first_kv_shared_layer_idx :]:
            for name in SHARED:
                layer.self_attn.pop(name)

    def __call__(self, inputs: Any = None, cache: Any = None, input_embeddings: Any = None) -> Any:
        """Return the last hidden states; shared keys and values always come from a cache."""
        if cache is None:
            new: Any = ConcatenateKVCache
            cache = [new() for _ in range(self.first_kv_shared_layer_idx)]
        return super().__call__(inputs, cache, input_embeddings)


class Gemma3nText(Module):
    """Gemma 3n's text model, which mlx-lm has in the multimodal one alone, with its head apart."""

    def __init__(self, args: TextConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.args, self.model_type = args, "gemma3n_text"
        self.softcap = args.final_logit_softcapping
        self.model = _Headless(args)

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        """Return the logits of `inputs`, (R, L, V)."""
        hidden = self.model(inputs, cache=cache)
        table = self.model.embed_tokens
        logits = Embedding.as_linear(table, hidden)  # type: ignore[no-untyped-call]
        result: mx.array = logits if self.softcap is None else logit_softcap(self.softcap, logits)
        return result

    def sanitize(self, weights: Weights) -> Weights:
        """Drop the head, which is the embedding, and projections that no layer uses."""
        first, kept = self.model.first_kv_shared_layer_idx, {}
        for name, weight in weights.items():
            _, _, rest = name.partition("model.layers.")
            layer, _, path = rest.partition(".self_attn.")
            unused = path.rpartition(".")[0] in SHARED and int(layer) >= first
            if name != "lm_head.weight" and not unused:
                kept[name] = weight
        return kept

    @property
    def layers(self) -> Any:
        """The decoder layers."""
        return self.model.layers

    def make_cache(self) -> Any:
        """Return mlx-lm's caches of one row."""
        return self.model.make_cache()  # type: ignore[no-untyped-call]


class _SharedLayer(GraniteMoeHybridLayer):
    """A layer whose dense MLP has transformers' fused input, and its name."""

    @property
    def mlp(self) -> Any:  # type: ignore[override]
        return self.shared_mlp


class GraniteHybrid(Model):
    """Granite 4. Where it is dense, mlx-lm splits a fused linear in two, which adapters know."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__(args)
        if not args.use_moe:
            for layer in self.model.layers:
                layer.pop("mlp")
                layer.shared_mlp = GraniteMoeHybridSharedMLP(args)
                layer.__class__ = _SharedLayer

    def sanitize(self, weights: Weights) -> Weights:
        """Turn the convolutions, and let the dense MLPs be fused."""
        kept = {name: weight for name, weight in weights.items() if ".shared_mlp." in name}
        if self.args.use_moe:
            kept = {}
        others = {name: weight for name, weight in weights.items() if name not in kept}
        turned: Weights = super().sanitize(others)  # type: ignore[no-untyped-call]
        return turned | kept


class GptOss(gpt_oss.Model):
    """gpt-oss, whose folders may hold its experts as plain matrices, (experts, in, out)."""

    def sanitize(self, weights: Weights) -> Weights:
        """Split gate and up of the experts, which are interleaved, and turn them."""
        found = {}
        for name in [name for name in weights if name.endswith("experts.gate_up_proj")]:
            joined = weights.pop(name).swapaxes(-1, -2)
            bias = weights.pop(f"{name}_bias")
            base = name.removesuffix("gate_up_proj")
            for first, part in enumerate(("gate_proj", "up_proj")):
                found[f"{base}{part}.weight"] = mx.contiguous(joined[:, first::2])
                found[f"{base}{part}.bias"] = mx.contiguous(bias[:, first::2])
            down = f"{base}down_proj"
            found[f"{down}.weight"] = mx.contiguous(weights.pop(down).swapaxes(-1, -2))
            found[f"{down}.bias"] = weights.pop(f"{down}_bias")
        if found:
            return weights | found
        packed: Weights = super().sanitize(weights)  # type: ignore[no-untyped-call]
        return packed
