"""Attention of many rows to one shared prefix, kept once, and to each row's own keys.

Both parts meet in one softmax, so this is plain attention with the prefix's keys repeated, to
float order, without repeating them (the idea of arXiv 2402.05099). mlx-lm's models reach it
through their own `scaled_dot_product_attention`, which asks the cache first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import mlx.core as mx
from mlx.nn.layers.base import Module

from .numerics import exp_below, slow_exp

KV: TypeAlias = tuple[mx.array, mx.array]  # keys and values, each (kv_heads, tokens, head_dim)
Mask: TypeAlias = mx.array | str | None  # bool, broadcast to (rows, 1, queries, keys); "causal"; all visible


def attend(
    queries: mx.array, keys: mx.array, values: mx.array, prefix: KV | None, scale: float, mask: Mask
) -> mx.array:
    """softmax(scale * queries [prefix keys, keys]^T) [prefix values, values], shape of `queries`.

    `queries` (rows, heads, L, head_dim), `keys` and `values` (rows, kv_heads, T, head_dim).
    `mask` speaks of the T own keys; the whole prefix is visible to every query.
    """
    if prefix is None and not slow_exp():
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
    shared = prefix or ()
    # Recomputed in the backward pass: a layer keeps its keys, never its scores.
    run: Callable[..., mx.array] = mx.checkpoint(partial(_attend, scale=scale, mask=mask))
    return run(queries, keys, values, *shared)


def _attend(
    queries: mx.array, keys: mx.array, values: mx.array, *shared: mx.array, scale: float, mask: Mask
) -> mx.array:
    rows, _, length, width = queries.shape
    groups = keys.shape[1]
    # The query heads of one key head lie side by side: (rows, groups, stacked queries, width).
    stacked = (queries * scale).reshape(rows, groups, -1, width)
    near = _masked((stacked @ keys.swapaxes(-1, -2)).astype(mx.float32), mask, length)
    top = near.max(axis=-1, keepdims=True)
    if not shared:
        near = exp_below(near, top)
        mixed = near.astype(values.dtype) @ values / near.sum(axis=-1, keepdims=True).astype(values.dtype)
        return mixed.reshape(queries.shape)

    def merge(x: mx.array) -> mx.array:  # (rows, groups, q, ...) -> (groups, rows * q, ...)
        return x.swapaxes(0, 1).reshape(groups, -1, x.shape[-1])

    def split(x: mx.array) -> mx.array:
        return x.reshape(groups, rows, -1, x.shape[-1]).swapaxes(0, 1)

    prefix_keys, prefix_values = shared
    far = (merge(stacked) @ prefix_keys.swapaxes(-1, -2)).astype(mx.float32)
    top = mx.maximum(top, split(far.max(axis=-1, keepdims=True)))
    near, far = exp_below(near, top), exp_below(far, merge(top))
    total = near.sum(axis=-1, keepdims=True) + split(far.sum(axis=-1, keepdims=True))
    mixed = near.astype(values.dtype) @ values + split(far.astype(values.dtype) @ prefix_values)
    return (mixed / total.astype(values.dtype)).reshape(queries.shape)


def _masked(scores: mx.array, mask: Mask, length: int) -> mx.array:
    """-inf where `mask` forbids; `scores` (rows, groups, heads of a group * length, keys)."""
    if mask is None:
        return scores
    if isinstance(mask, str):
        mask = causal(length)
    rows, groups, _, keys = scores.shape
    visible = mask if mask.ndim == 2 else mx.expand_dims(mask, 2)
    return mx.where(visible, scores.reshape(rows, groups, -1, length, keys), -mx.inf).reshape(scores.shape)


def causal(length: int) -> mx.array:
    """True where the key is not after the query, shape (length, length)."""
    return mx.tri(length, dtype=mx.bool_)


def install(model: Module) -> None:
    """Let the modules of `model` ask their cache to attend. Other caches and models are served as before."""
    for name in {type(module).__module__ for module in model.modules()}:  # type: ignore[no-untyped-call]
        module = sys.modules[name]
        original = getattr(module, "scaled_dot_product_attention", None)
        if original is not None and not hasattr(original, "asks_cache"):
            module.scaled_dot_product_attention = _asking(original)  # type: ignore[attr-defined]


def _asking(original: Callable[..., mx.array]) -> Callable[..., mx.array]:
    def dispatch(
        queries: mx.array, keys: mx.array, values: mx.array, cache: Any, *args: Any, **kwargs: Any
    ) -> mx.array:
        attend_with = getattr(cache, "attend", None)
        if attend_with is None:
            return original(queries, keys, values, cache, *args, **kwargs)
        return attend_with(queries, keys, values, *args, **kwargs)  # type: ignore[no-any-return]

    dispatch.asks_cache = True  # type: ignore[attr-defined]
    return dispatch
