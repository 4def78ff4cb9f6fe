"""mlx-lm's plain forward in float32: what a model computes, independent of the backend.

What it computes otherwise than transformers is put right (`library_repairs`). It serves where
transformers cannot compute: without torch, and for weights quantised for MLX. No cache, no LoRA,
one row at a time. Left out: windows that mlx-lm does not cut at, speed, and every other dtype.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import orjson

from offapi.episodes import Floats

from .library_config import full_config, load_library
from .library_repairs import repair


class LibraryModel:
    """One model on the CPU, read by mlx-lm alone."""

    def __init__(self, folder: Path) -> None:
        self.by = f"mlx-lm {version('mlx-lm')}, plain forward, float32"
        self.model, config = _load(folder, lazy=False)
        self.model.set_dtype(mx.float32)
        repair(self.model, config)

    def _logits(self, tokens: tuple[int, ...]) -> mx.array:
        with mx.stream(mx.cpu):
            logits_TV: mx.array = self.model(mx.array([tokens]))[0].astype(mx.float32)
            mx.eval(logits_TV)
        return logits_TV

    def logprobs(self, tokens: tuple[int, ...]) -> Floats:
        """Return the logprobs (nats) of all tokens but the first, shape (T - 1,)."""
        logits_TV = np.array(self._logits(tokens)[:-1], np.float64)
        logits_TV -= logits_TV.max(-1, keepdims=True)
        whole = np.log(np.exp(logits_TV).sum(-1))
        chosen = logits_TV[np.arange(len(tokens) - 1), tokens[1:]]
        return np.asarray(chosen - whole, np.float32)

    def greedy(self, prompt: tuple[int, ...], count: int) -> tuple[list[int], list[float]]:
        """Return the likeliest tokens after `prompt`, one by one, and each one's margin (nats)."""
        tokens, margins = list(prompt), []
        for _ in range(count):
            logits_V = np.array(self._logits(tuple(tokens))[-1])
            second, first = np.argsort(logits_V, kind="stable")[-2:]
            margins.append(float(logits_V[first] - logits_V[second]))
            tokens.append(int(first))
        return tokens[len(prompt) :], margins


def open_reference(folder: Path) -> LibraryModel:
    """Load the model; raise whatever mlx-lm raises for a folder that it cannot read."""
    return LibraryModel(folder)


def check_tensors(folder: Path) -> None:
    """Build the model without reading its weights; raise whatever mlx-lm raises if they misfit."""
    _load(folder, lazy=True)


def _load(folder: Path, lazy: bool) -> tuple[Any, dict[str, Any]]:
    """Return the text model and its full config."""
    config = full_config(orjson.loads((folder / "config.json").read_bytes()))
    model, _ = load_library(folder, config, lazy)
    return getattr(model, "language_model", model), config
