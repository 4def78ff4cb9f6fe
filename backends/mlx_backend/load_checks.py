"""Checks of a loaded model before its numbers are trusted, cheap enough for every load.

They cover the rotation base (if mlx-lm does not read a config key, it silently uses 10000), and
whether the model's attention really goes through this backend's caches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from offapi.adapter import check_finite, not_finite
from offapi.backend import ModelSpec
from offapi.errors import ModelError

from .cache import Block, blocks, extend
from .policy import Policy

# relative to the logits' norm: a wrong prefix is off by about 1
TOLERANCE = {"float32": 1e-3, "bfloat16": 1e-1}
# types whose first two frequencies show the base
KEEP_BASE = ("default", "dynamic", "linear", "llama3", "yarn")


def check_rope(model: Any, config: dict[str, Any], path: Path) -> None:
    """Raise ModelError unless the loaded modules rotate positions as `config` says."""
    text = config.get("text_config") or config
    declared = text.get("rope_parameters") or {}
    nested = [value for value in declared.values() if isinstance(value, dict)] or [declared]
    bases = {float(entry["rope_theta"]) for entry in nested if "rope_theta" in entry}
    if not bases and "rope_theta" in text:
        bases = {float(text["rope_theta"])}
    if not bases:
        return
    scaling = declared or text.get("rope_scaling") or {}
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    ropes = [
        module
        for name, module in model.named_modules()
        if name.rsplit(".", 1)[-1] in ("rope", "rotary_emb")
    ]
    # smollm3 has layers without rotation.
    ropes = [module for module in ropes if hasattr(module, "dims") or hasattr(module, "dim")]
    for frequencies in map(_frequencies, ropes):
        if not any(_rotates(frequencies, base, kind) for base in bases):
            used = float((frequencies[0] / frequencies[1]) ** len(frequencies))
            raise ModelError(
                f"mlx-lm rotates positions with base {used:.6g}, or scales them differently; the"
                f" config has rope_theta {', '.join(f'{base:g}' for base in sorted(bases))},"
                f" rope_type {kind!r}.",
                where=str(path / "config.json"),
                next_step=(
                    "Set `rope_theta` (and `rope_scaling`) at the top level, as `offapi models add`"
                    " does."
                ),
            )


def _rotates(frequencies: NDArray[np.float64], base: float, kind: str) -> bool:
    plain = base ** -(np.arange(len(frequencies)) / len(frequencies))
    if kind in ("default", "dynamic"):
        return bool(np.allclose(frequencies, plain, rtol=1e-3))
    if kind not in KEEP_BASE:
        return True
    used = (frequencies[0] / frequencies[1]) ** len(frequencies)
    return bool(abs(used / base - 1) < 1e-2 and not np.allclose(frequencies, plain, rtol=1e-3))


def _frequencies(rope: Any) -> NDArray[np.float64]:
    """Return each pair's angle per position (radians), read off a rotation by one position."""
    width = int(getattr(rope, "dims", None) or rope.dim)
    traditional = bool(getattr(rope, "traditional", False))
    first = slice(0, width, 2) if traditional else slice(0, width // 2)
    second = slice(1, width, 2) if traditional else slice(width // 2, width)
    vector = np.zeros((1, 1, 1, width), dtype=np.float32)
    vector[..., first] = 1.0
    turned = np.array(rope(mx.array(vector), offset=1), dtype=np.float64)[0, 0, 0]
    angles: NDArray[np.float64] = np.arctan2(turned[second], turned[first])
    return angles


def check_weights(policy: Policy, spec: ModelSpec) -> None:
    """Raise ModelError for a weight that is NaN or infinite."""
    weights: Any = tree_flatten(policy.model.parameters())
    for name, weight in weights:
        if not bool(mx.isfinite(weight).all().item()):
            raise not_finite(name, spec)


def check_attention(policy: Policy, spec: ModelSpec) -> None:
    """Raise ModelError unless prefix, block and separate head give the model's own logits.

    These must be numbers.
    """
    tokens = mx.arange(1, 9)[None] % policy.vocabulary
    whole = policy.model(tokens)[0, 4:].astype(mx.float32)
    check_finite(np.array(whole), spec)
    prefix: list[Block] = blocks(None, policy.layers)
    policy.hidden(tokens[:, :4], prefix)
    hidden = policy.hidden(tokens[:, 4:], blocks(extend(None, prefix), policy.layers))
    error = mx.linalg.norm(policy.logits(hidden[0]) - whole) / mx.linalg.norm(whole)
    if not float(error) < TOLERANCE[spec.dtype]:
        raise ModelError(
            f"the attention of model type {policy.model.model_type!r} cannot share prefixes on"
            " MLX.",
            where=str(spec.path),
            next_step="Use the torch backend for this model.",
        )
