"""What to load: a model folder, the adapter on it, and how to compute with it.

Left out: loading, which is each backend's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from offapi.config.bounds import ABOVE_0, AT_LEAST_1, require
from offapi.implementations import Implementation

DType = Literal["auto", "float32", "bfloat16"]  # auto: see `offapi.backend.resolve_dtype`
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALL_LINEAR = "all-linear"  # every linear layer but the head and the routers of experts


def _check_pattern(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name} must be a regular expression, got {pattern!r}: {error}") from None


@dataclass(frozen=True)
class LoraSpec:
    """Shape of a low-rank adapter (arXiv 2106.09685): W + (alpha / rank) * B @ A.

    PEFT's conventions for the scale and for names; mlx-lm's `scale` is this alpha / rank. `targets`
    are ends of module paths (`q_proj`, `layers.0.mlp.up_proj`), or `all-linear`; a text in place of
    the list is an expression for whole paths. `LINEARS` on a model that has not all of them means
    all-linear. A key of `ranks` and `alphas` is an expression for the end of a path; the first that
    matches counts. `offapi.adapter.resolve` says what a shape comes to on a model.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] | str = LINEARS
    rslora: bool = False  # the scale is alpha / sqrt(rank) (arXiv 2312.03732)
    dora: bool = False  # rows keep a trained length of their own (arXiv 2402.09353)
    layers: tuple[int, ...] = ()  # the layers that are adapted, from 0; none: all
    exclude: tuple[str, ...] | str = ()  # as `targets`
    ranks: Mapping[str, int] = field(default_factory=dict, hash=False)
    alphas: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        require(self, {"rank": AT_LEAST_1, "alpha": ABOVE_0})
        if self.targets == ALL_LINEAR:  # as PEFT writes it
            object.__setattr__(self, "targets", (ALL_LINEAR,))
        for name, bound in (("ranks", AT_LEAST_1), ("alphas", ABOVE_0)):
            for pattern, value in getattr(self, name).items():
                if not bound[0](value):
                    raise ValueError(f"{name} must be {bound[1]}, got {value} for {pattern!r}")
                _check_pattern(name, pattern)
        for name in ("targets", "exclude"):
            if isinstance(expression := getattr(self, name), str):
                _check_pattern(name, expression)
        if any(layer < 0 for layer in self.layers):
            raise ValueError("layers must be 0 or more")
        if self.layers and isinstance(self.targets, str):
            raise ValueError("layers cannot go with an expression in targets, which can name them")

    @property
    def scale(self) -> float:
        """alpha / rank, the factor of B @ A where no module has a rank or an alpha of its own."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(frozen=True)
class Limits:
    """How much a backend holds at once. No limit changes a result, but for the order of sums."""

    # tokens of one micro-batch, a shared prefix counted once; None: what suits the device
    train_tokens: int | None = None
    logit_rows: int = 256  # rows of the vocabulary-wide head computed at a time
    rollout_rows: int = 64  # completions decoded side by side

    def __post_init__(self) -> None:
        require(self, dict.fromkeys(("train_tokens", "logit_rows", "rollout_rows"), AT_LEAST_1))

    @property
    def micro_batch(self) -> int:
        """The tokens of one micro-batch: `train_tokens`, or 2048."""
        return 2048 if self.train_tokens is None else self.train_tokens


@dataclass(frozen=True)
class ModelSpec:
    """What to load: a model folder, an adapter on it, and the dtype and device to compute with.

    `adapter` is a PEFT folder. With `lora`, a new adapter is drawn from `seed`; with both, training
    continues from `adapter`, which must have that shape; with `full`, every weight is trained. With
    neither, the model is for inference alone. `quantize` asks for a base in that many bits, `shard`
    for one that the ranks of a launch hold together. The
    implementation `auto` is the one that `models add` measured, or else `packed` where it gives the
    model's own logits.
    """

    path: Path
    adapter: Path | None = None
    lora: LoraSpec | None = None
    dtype: DType = "float32"
    device: str = "auto"  # torch: auto, cpu, cuda, cuda:1; mlx: auto, cpu, gpu
    quantize: int | None = None  # bits
    seed: int = 0
    limits: Limits = Limits()
    activation_bytes: float | None = None  # bytes per training token at the peak; set by `load`
    implementation: Implementation = "auto"
    checkpointing: bool | None = None  # recompute layers in the backward pass; None: if it must
    full: bool = False
    shard: bool = False
