"""Attention of many rows to one shared prefix, stored once, and to each row's own keys.

Both parts meet in one softmax. To the order of float sums, this is plain attention with the
prefix's keys repeated, but nothing is repeated (arXiv 2402.05099). The backward pass recomputes the
weights from their log-sum (arXiv 2205.14135), so no score outlives its block of queries. mlx-lm's
models call this module through their own `scaled_dot_product_attention`, which asks the cache
first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import mlx.core as mx
from mlx.nn.layers.base import Module

from .linux_cpu.fast_exp import exp_below, slow_exp

KV: TypeAlias = tuple[mx.array, mx.array]  # keys and values, each (kv_heads, T, head_dim)
# a bool array that broadcasts to (R, 1, L, S); "causal"; or None: all keys are visible
Mask: TypeAlias = mx.array | str | None
BLOCK = 128  # queries computed at a time; causal blocks skip the keys after them


def attend(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    prefix: KV | None,
    scale: float,
    mask: Mask,
    follows_R: mx.array | None = None,
) -> mx.array:
    """Return softmax(scale * queries [prefix keys, keys]^T) [prefix values, values].

    `queries` and the result are (R, heads, L, head_dim), `keys` and `values` (R, kv_heads, S,
    head_dim). `mask` concerns the S own keys. The whole prefix is visible to every query of the
    rows that follow it (bool, forward only); None: all do.
    """
    if prefix is None and not slow_exp():
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)

    @mx.custom_function
    def forward(*arrays: mx.array) -> KV:
        return _forward(_Inputs(*arrays), mask, follows_R)

    @forward.vjp
    def backward(arrays: tuple[mx.array, ...], cotangents: KV, outputs: KV) -> tuple[mx.array, ...]:
        return _backward(_Inputs(*arrays), mask, cotangents[0], *outputs)

    result: Any = forward(queries * scale, keys, values, *(prefix or ()))
    output: mx.array = result[0]
    return output


@dataclass(frozen=True)
class _Inputs:
    """What attention is a function of; `queries` are already scaled."""

    queries: mx.array
    keys: mx.array
    values: mx.array
    prefix_keys: mx.array | None = None
    prefix_values: mx.array | None = None

    def stack(self, x: mx.array, block: slice) -> mx.array:
        """Return a block of (R, heads, L, width) as (R, kv_heads, q, width).

        The q places of a key head are the block's queries of all heads that share it.
        """
        rows, _, _, width = x.shape
        return x[:, :, block].reshape(rows, self.keys.shape[1], -1, width)

    def blocks(self, mask: Mask) -> Iterator[tuple[slice, slice, mx.array | None]]:
        """Yield a block of queries, the keys it may see, and a mask among those.

        The mask is (R or 1, 1, 1, L, S), or None.
        """
        length = self.queries.shape[2]
        if not isinstance(mask, str):
            by_head = None if mask is None else mx.expand_dims(mask, 2)
            yield slice(0, length), slice(0, self.keys.shape[2]), by_head
            return
        for start in range(0, length, BLOCK):
            end = min(start + BLOCK, length)
            yield slice(start, end), slice(0, end), mx.tri(end - start, end, start, dtype=mx.bool_)

    def near(self, stacked: mx.array, seen: slice, mask: mx.array | None) -> mx.array:
        """Return the scores against the row's own keys, fp32, (R, kv_heads, q, S)."""
        scores = (stacked @ self.keys[:, :, seen].swapaxes(-1, -2)).astype(mx.float32)
        if mask is None:
            return scores
        rows, groups, _, keys = scores.shape
        by_head = scores.reshape(rows, groups, -1, mask.shape[-2], keys)
        return mx.where(mask, by_head, -mx.inf).reshape(scores.shape)

    def far(self, stacked: mx.array, follows_R: mx.array | None) -> mx.array:
        """Return the scores against the prefix's keys, fp32, (kv_heads, R * q, S)."""
        assert self.prefix_keys is not None
        scores = (self.merge(stacked) @ self.prefix_keys.swapaxes(-1, -2)).astype(mx.float32)
        if follows_R is None:
            return scores
        visible = follows_R[:, None, None, None]
        return self.merge(mx.where(visible, self.split(scores), -mx.inf))

    def merge(self, x: mx.array) -> mx.array:
        """Reshape (R, kv_heads, q, width) to (kv_heads, R * q, width), for the one prefix."""
        return x.swapaxes(0, 1).reshape(x.shape[1], -1, x.shape[-1])

    def split(self, x: mx.array) -> mx.array:
        """Undo `merge`."""
        return x.reshape(x.shape[0], self.keys.shape[0], -1, x.shape[-1]).swapaxes(0, 1)


def _forward(x: _Inputs, mask: Mask, follows_R: mx.array | None) -> KV:
    """Return the mixed values, and the log-sum of each query's exponentials.

    The log-sums are (R, kv_heads, q of all blocks, 1).
    """
    outputs, sums = [], []
    for block, seen, visible in x.blocks(mask):
        stacked, values = x.stack(x.queries, block), x.values[:, :, seen]
        near = x.near(stacked, seen, visible)
        top = near.max(axis=-1, keepdims=True)
        if x.prefix_keys is None or x.prefix_values is None:
            near = exp_below(near, top)
            total = near.sum(axis=-1, keepdims=True)
            mixed = near.astype(values.dtype) @ values
        else:
            far = x.far(stacked, follows_R)
            top = mx.maximum(top, x.split(far.max(axis=-1, keepdims=True)))
            near, far = exp_below(near, top), exp_below(far, x.merge(top))
            total = near.sum(axis=-1, keepdims=True) + x.split(far.sum(axis=-1, keepdims=True))
            mixed = near.astype(values.dtype) @ values
            mixed = mixed + x.split(far.astype(values.dtype) @ x.prefix_values)
        rows, heads, _, width = x.queries.shape
        outputs.append((mixed / total.astype(values.dtype)).reshape(rows, heads, -1, width))
        sums.append(top + mx.log(total))
    return mx.concatenate(outputs, axis=2), mx.concatenate(sums, axis=2)


def _backward(
    x: _Inputs, mask: Mask, cotangent: mx.array, output: mx.array, sums: mx.array
) -> tuple[mx.array, ...]:
    """Return the gradients with respect to every array of `x`, in order."""
    dtype, done = cotangent.dtype, 0
    d_queries: list[mx.array] = []
    d_keys, d_values = mx.zeros_like(x.keys), mx.zeros_like(x.values)
    d_prefix: list[mx.array] = []
    if x.prefix_keys is not None:
        d_prefix = [mx.zeros_like(x.prefix_keys), mx.zeros_like(x.prefix_keys)]
    for block, seen, visible in x.blocks(mask):
        stacked, d_out = x.stack(x.queries, block), x.stack(cotangent, block)
        log_sum = sums[:, :, done : done + stacked.shape[2]]
        done += stacked.shape[2]
        # d softmax: weights * (d weights - their mean under the weights, which is d_out . output).
        mean = (d_out * x.stack(output, block)).astype(mx.float32).sum(axis=-1, keepdims=True)
        weights = exp_below(x.near(stacked, seen, visible), log_sum)
        d_scores = (weights * (d_out @ x.values[:, :, seen].swapaxes(-1, -2) - mean)).astype(dtype)
        d_stacked = d_scores @ x.keys[:, :, seen]
        d_keys = d_keys.at[:, :, seen].add(d_scores.swapaxes(-1, -2) @ stacked)
        d_values = d_values.at[:, :, seen].add(weights.astype(dtype).swapaxes(-1, -2) @ d_out)
        if x.prefix_keys is not None and x.prefix_values is not None:
            stacked, d_out = x.merge(stacked), x.merge(d_out)
            scores = (stacked @ x.prefix_keys.swapaxes(-1, -2)).astype(mx.float32)
            weights = exp_below(scores, x.merge(log_sum))
            d_weights = d_out @ x.prefix_values.swapaxes(-1, -2)
            d_scores = (weights * (d_weights - x.merge(mean))).astype(dtype)
            d_stacked = d_stacked + x.split(d_scores @ x.prefix_keys)
            d_prefix[0] = d_prefix[0] + d_scores.swapaxes(-1, -2) @ stacked
            d_prefix[1] = d_prefix[1] + weights.astype(dtype).swapaxes(-1, -2) @ d_out
        d_queries.append(d_stacked.reshape(x.queries[:, :, block].shape))
    return mx.concatenate(d_queries, axis=2), d_keys, d_values, *d_prefix


def install(model: Module) -> None:
    """Let the modules of `model` ask their cache to attend.

    Other caches and models behave as before.
    """
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
