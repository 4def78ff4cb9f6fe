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
from mlx_lm.models.cache import KVCache, make_prompt_cache
from numpy.typing import NDArray

from offapi.adapter import check_finite, not_finite
from offapi.errors import ModelError
from offapi.model_spec import ModelSpec

from .cache import Block, Cursor, Slots, blocks, extend
from .policy import Policy

# relative to the logits' norm: a wrong prefix is off by about 1
TOLERANCE = {"float32": 1e-3, "bfloat16": 1e-1}
ROW = 24  # tokens
LONG = 512  # tokens: windows beyond cost too much to check at every load
# types whose first two frequencies show the base
KEEP_BASE = ("default", "dynamic", "linear", "llama3")


def check_rope(model: Any, config: dict[str, Any], path: Path) -> None:
    """Raise ModelError unless the loaded modules rotate positions as `config` says."""
    flat = config.get("rope_parameters") or {}
    nested = [value for value in flat.values() if isinstance(value, dict)] or [flat]
    if "rope_theta" not in nested[0]:
        nested = [{**(config.get("rope_scaling") or {}), "rope_theta": config.get("rope_theta")}]
    entries = [(float(one["rope_theta"]), _kind(one)) for one in nested if one["rope_theta"]]
    if not entries:
        return
    ropes = [
        module
        for name, module in model.named_modules()
        if name.rsplit(".", 1)[-1] in ("rope", "rotary_emb")
    ]
    # smollm3 has layers without rotation.
    ropes = [module for module in ropes if hasattr(module, "dims") or hasattr(module, "dim")]
    for frequencies in map(_frequencies, ropes):
        if not any(_rotates(frequencies, *entry) for entry in entries):
            used = float((frequencies[0] / frequencies[1]) ** len(frequencies))
            declared = [f"rope_theta {base:g} ({kind})" for base, kind in entries]
            raise ModelError(
                f"mlx-lm rotates positions with base {used:.6g}, or scales them differently; the"
                f" config has {', '.join(declared)}.",
                where=str(path / "config.json"),
                next_step=(
                    "Set `rope_theta` (and `rope_scaling`) at the top level, as `offapi models add`"
                    " does."
                ),
            )


def _kind(scaling: dict[str, Any]) -> str:
    return str(scaling.get("rope_type") or scaling.get("type") or "default")


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


def choose_implementation(policy: Policy, spec: ModelSpec) -> None:
    """Set how `policy` is computed: packed where asked for, or where it gives the model's logits.

    Raise ModelError for logits that are not finite, and for what was asked for and cannot be.
    """
    caches = make_prompt_cache(policy.model)
    others = {type(cache).__name__ for cache in caches} - {"KVCache", "RotatingKVCache"}
    unseen = _unseen_windows(policy, caches)
    why = f"its layers keep other state ({', '.join(sorted(others))})" if others else ""
    if spec.implementation != "library" and not why:
        error = packed_error(policy, spec, min(ROW, *unseen) if unseen else None)
        if error < TOLERANCE[spec.dtype]:
            return
        why = f"its logits are off by {error:.2g} of their size"
    if spec.implementation == "packed":
        raise _unsupported(policy, spec, f"cannot be computed packed on MLX: {why}")
    if unseen:
        what = f"is computed by mlx-lm without its window (sliding_window = {min(unseen)})"
        raise _unsupported(policy, spec, what)
    policy.implementation, policy.owners = "library", ()
    tokens = _some_tokens(8, policy)
    check_finite(np.array(policy.model(tokens).astype(mx.float32)), spec)


def _unseen_windows(policy: Policy, caches: list[Any]) -> list[int]:
    """Return the windows that the model has and mlx-lm does not cut at."""
    pairs = zip(policy.windows, caches, strict=True)
    return [window for window, cache in pairs if window and type(cache) is KVCache]


def _unsupported(policy: Policy, spec: ModelSpec, what: str) -> ModelError:
    return ModelError(
        f"model type {policy.model.model_type!r} {what}.",
        where=str(spec.path),
        next_step="Set `implementation` to `auto`, or use the torch backend.",
    )


def _some_tokens(length: int, policy: Policy) -> mx.array:
    """Return tokens from all over the vocabulary, (1, L).

    The first ones are special: a row of them has activations that bfloat16 holds badly.
    """
    return ((mx.arange(length) * 7919 + 1000) % policy.vocabulary)[None]


def packed_error(policy: Policy, spec: ModelSpec, length: int | None) -> float:
    """Return how far prefix, block, slots and separate head are from mlx-lm's own logits.

    The number is relative to their norm. A row has `length` tokens, or else more than the small
    windows.
    """
    if length is None:
        cut = [window + 8 for window in policy.windows if window and window <= LONG]
        length = max(ROW, *cut) if cut else ROW
    tokens = _some_tokens(length, policy)
    whole = policy.model(tokens)[0].astype(mx.float32)
    check_finite(np.array(whole), spec)
    shared, last = length // 2, length - 1
    caches: list[Block] = blocks(None, policy.windows)
    policy.hidden(tokens[:, :shared], caches)
    prefix = extend(None, caches)
    caches = blocks(prefix, policy.windows)
    hidden = policy.hidden(tokens[:, shared:last], caches)[0]
    own = extend(None, caches)
    cursor = Cursor(shared, [last - shared], [True])
    slots = []
    for shared_kv, own_kv, window in zip(prefix, own, policy.windows, strict=True):
        slots.append(Slots(shared_kv, 1, length - shared, own_kv, window))
        slots[-1].put(0, own_kv)
        slots[-1].cursor = cursor
    stepped = policy.hidden(tokens[:, last:], slots)[0]
    logits = policy.logits(mx.concatenate([hidden, stepped]))
    error = mx.linalg.norm(logits - whole[shared:]) / mx.linalg.norm(whole[shared:])
    return float(error)
