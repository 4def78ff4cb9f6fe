"""Exported folders opened by mlx-lm as a user would, and written quantised by it.

`offapi.export` compares what they compute with the run. Left out: sampling, and bits per layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.utils import dequantize_model, load, load_model, quantize_model, save_config, save_model

from offapi.episodes import Floats

Tokens = tuple[int, ...]

GROUP = 64  # weights that share a scale, mlx-lm's default


@dataclass(frozen=True)
class MLXForm:
    """A model with the tokenizer that mlx-lm loads with it."""

    model: Any
    tokenizer: Any

    def logprobs(self, tokens: Sequence[int]) -> Floats:
        """Return the logprob (nats) of each token but the first."""
        ids = mx.array([list(tokens)])
        logits = self.model(ids)[0, :-1].astype(mx.float32)
        all_logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        taken = mx.take_along_axis(all_logprobs, ids[0, 1:, None], axis=-1)[:, 0]
        return np.array(taken, np.float32)

    def greedy(self, prompt: Sequence[int], max_tokens: int, stop_ids: Sequence[int]) -> Tokens:
        """Return what mlx-lm generates by default, which is greedy."""
        written: list[int] = []
        for token, _ in generate_step(mx.array(list(prompt)), self.model, max_tokens=max_tokens):
            written.append(int(token))
            if written[-1] in stop_ids:
                break
        return tuple(written)

    def render(self, turns: Sequence[Mapping[str, str]]) -> Tokens | None:
        """Return the tokens that the tokenizer makes of a chat."""
        text = self.tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=True
        )
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))


def open_fused(folder: Path, base: Path) -> MLXForm:
    """Open a fused model, quantised or not."""
    del base
    return _form(*load(str(folder))[:2])


def open_adapter(folder: Path, base: Path) -> MLXForm:
    """Open an adapter in mlx-lm's layout on its base."""
    return _form(*load(str(base), adapter_path=str(folder))[:2])


def open_both(folder: Path, base: Path) -> MLXForm:
    """Open an adapter in mlx-lm's layout on the base that was written with it."""
    return open_adapter(folder / "adapter", folder / "base")


def write_base(base: Path, folder: Path, bits: int, dtype: str, *, whole: bool) -> None:
    """Write weights and config of a base packed as the backend packs it, in `dtype`.

    Without `whole`, what is outside its layers stays float.
    """
    model, config = load_model(base, lazy=True)
    model.set_dtype(getattr(mx, dtype))

    def packed(path: str, _: Any) -> bool:
        return whole or ".layers." in path

    model, config = quantize_model(model, config, GROUP, bits, quant_predicate=packed)
    save_model(folder, model, donate_model=True)
    save_config(config, folder / "config.json")


def write_quantised(fused: Path, folder: Path, bits: int) -> None:
    """Write the weights and the config of a fused model quantised, as `mlx_lm.convert` does."""
    model, config = load_model(fused, lazy=True)
    model, config = quantize_model(model, config, GROUP, bits)
    save_model(folder, model, donate_model=True)
    save_config(config, folder / "config.json")


def _form(model: Any, tokenizer: Any) -> MLXForm:
    model.set_dtype(mx.float32)
    if mx.default_device().type == mx.DeviceType.cpu:  # where products with packed weights crawl
        model = dequantize_model(model)
    return MLXForm(model, tokenizer)
