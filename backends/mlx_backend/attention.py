"""Attention of many rows to one shared prefix, stored once, and to each row's own keys.

Both parts meet in one softmax. To the order of float sums, this is plain attention with the
prefix's keys repeated, but nothing is repeated (arXiv 2402.05099). The backward pass recomputes the
weights from their log-sum (arXiv 2205.14135), so no score outlives its block of queries. Windows,
softcaps (Gemma 2) and sinks (gpt-oss) are part of it. mlx-lm's models call this module through
their own `scaled_dot_product_attention`, which asks the cache first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

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
    far: mx.array | None = None,
    *,
    window: int | None = None,
    softcap: float | None = None,
    sinks: mx.array | None = None,
) -> mx.array:
    """Return softmax(scale * queries [prefix keys, keys]^T) [prefix values, values].

    `queries` and the result are (R, heads, L, head_dim), `keys` and `values` (R, kv_heads, S,
    head_dim). `mask` concerns the S own keys, `far` (bool, (R, 1, 1, P), forward only) those of the
    prefix; None: all of it is visible. A causal mask may have a `window`: a query sees that many of
    the last keys, its own included, and those before are cut from the prefix too. Scores are at
    most `softcap` in size, by tanh; `sinks` (heads,) are scores of no value in each head's sum.
    """
    if window is not None and queries.shape[2] + (prefix[0].shape[1] if prefix else 0) <= window:
        window = None
    if prefix is None and softcap is None and not slow_exp():
        if window is not None:
            mask = _near_window(queries.shape[2], queries.shape[2], 0, window)
        return mx.fast.scaled_dot_product_attention(
            queries, keys, values, scale=scale, mask=mask, sinks=sinks
        )
    arrays = {"queries": queries * scale, "keys": keys, "values": values}
    if prefix is not None:
        arrays |= {"prefix_keys": prefix[0], "prefix_values": prefix[1]}
    if sinks is not None:
        arrays["sinks"] = sinks
    sight = _Sight(mask, far, window, softcap)

    @mx.custom_function
    def forward(*given: mx.array) -> KV:
        return _forward(_Inputs(sight, **dict(zip(arrays, given, strict=True))))

    @forward.vjp
    def backward(given: tuple[mx.array, ...], cotangents: KV, outputs: KV) -> tuple[mx.array, ...]:
        x = _Inputs(sight, **dict(zip(arrays, given, strict=True)))
        return _backward(x, cotangents[0], *outputs)

    result: Any = forward(*arrays.values())
    output: mx.array = result[0]
    return output


def _near_window(queries: int, keys: int, first: int, window: int | None) -> mx.array:
    """Return which keys each query sees, bool (queries, keys); query 0 stands at key `first`."""
    seen = mx.tri(queries, keys, first, dtype=mx.bool_)
    return seen if window is None else seen & ~mx.tri(queries, keys, first - window, dtype=mx.bool_)


@dataclass(frozen=True, eq=False)
class _Sight:
    """What queries see, and how large a score may be; see `attend`."""

    mask: Mask
    far: mx.array | None
    window: int | None
    softcap: float | None


class _Part(NamedTuple):
    """A block of queries, the row's and the prefix's keys it may see, and masks among those.

    The masks are (R or 1, 1, 1, L or 1, S), or None.
    """

    queries: slice
    near: slice
    near_mask: mx.array | None
    far: slice
    far_mask: mx.array | None


@dataclass(frozen=True)
class _Inputs:
    """What attention is a function of; `queries` are already scaled."""

    sight: _Sight
    queries: mx.array
    keys: mx.array
    values: mx.array
    prefix_keys: mx.array | None = None
    prefix_values: mx.array | None = None
    sinks: mx.array | None = None

    def stack(self, x: mx.array, block: slice) -> mx.array:
        """Return a block of (R, heads, L, width) as (R, kv_heads, q, width).

        The q places of a key head are the block's queries of all heads that share it.
        """
        rows, _, _, width = x.shape
        return x[:, :, block].reshape(rows, self.keys.shape[1], -1, width)

    @property
    def shared(self) -> int:
        """The length of the prefix."""
        return 0 if self.prefix_keys is None else int(self.prefix_keys.shape[1])

    def parts(self) -> Iterator[_Part]:
        """Yield blocks of queries with what they see."""
        mask, length, window = self.sight.mask, self.queries.shape[2], self.sight.window
        if not isinstance(mask, str):
            near, far = (m if m is None else mx.expand_dims(m, 2) for m in (mask, self.sight.far))
            everything = slice(0, self.keys.shape[2])
            yield _Part(slice(0, length), everything, near, slice(0, self.shared), far)
            return
        for start in range(0, length, BLOCK):
            end = min(start + BLOCK, length)
            first = 0 if window is None else max(0, start - window + 1)
            near = _near_window(end - start, end - first, start - first, window)
            yield _Part(slice(start, end), slice(first, end), near, *self._far(start, end))

    def _far(self, start: int, end: int) -> tuple[slice, mx.array | None]:
        """Return which of the prefix's keys a causal block sees, and a mask among those."""
        shared, window = self.shared, self.sight.window
        if window is None or shared + end <= window:
            return slice(0, shared), None
        first = min(shared, max(0, shared + start - window + 1))
        at = shared + start - first  # where the first query stands among them
        return slice(first, shared), _near_window(end - start, shared - first, at, window)

    def near(self, stacked: mx.array, part: _Part) -> mx.array:
        """Return the scores against the row's own keys, fp32, (R, kv_heads, q, S)."""
        return self.capped(stacked @ self.keys[:, :, part.near].swapaxes(-1, -2))

    def far(self, stacked: mx.array, part: _Part) -> mx.array:
        """Return the scores against the prefix's keys, fp32, (R, kv_heads, q, S)."""
        assert self.prefix_keys is not None
        keys = self.prefix_keys[:, part.far].swapaxes(-1, -2)
        return self.capped(self.split(self.merge(stacked) @ keys))

    def capped(self, scores: mx.array) -> mx.array:
        """Return scores in fp32, bounded by the softcap."""
        scores, cap = scores.astype(mx.float32), self.sight.softcap
        return scores if cap is None else cap * mx.tanh(scores / cap)

    def slope(self, d_scores: mx.array, scores: mx.array) -> mx.array:
        """Return the gradient before the softcap, from that after it."""
        cap = self.sight.softcap
        return d_scores if cap is None else d_scores * (1 - mx.square(scores / cap))

    def sink(self, stacked: mx.array) -> mx.array | None:
        """Return each query's sink, fp32, (1, kv_heads, q, 1)."""
        if self.sinks is None:
            return None
        by_head = self.sinks.astype(mx.float32).reshape(1, self.keys.shape[1], -1, 1)
        return mx.repeat(by_head, stacked.shape[2] // by_head.shape[2], axis=2)

    def merge(self, x: mx.array) -> mx.array:
        """Reshape (R, kv_heads, q, width) to (kv_heads, R * q, width), for the one prefix."""
        return x.swapaxes(0, 1).reshape(x.shape[1], -1, x.shape[-1])

    def split(self, x: mx.array) -> mx.array:
        """Undo `merge`."""
        return x.reshape(x.shape[0], self.keys.shape[0], -1, x.shape[-1]).swapaxes(0, 1)


def _masked(scores: mx.array, mask: mx.array | None) -> mx.array:
    """Return the scores (R, kv_heads, q, S), -inf where the mask (R, 1, 1, L, S) hides a key."""
    if mask is None:
        return scores
    rows, groups, _, keys = scores.shape
    by_head = scores.reshape(rows, groups, -1, mask.shape[-2], keys)
    return mx.where(mask, by_head, -mx.inf).reshape(scores.shape)


def _forward(x: _Inputs) -> KV:
    """Return the mixed values, and the log-sum of each query's exponentials.

    The log-sums are (R, kv_heads, q of all blocks, 1).
    """
    outputs: list[mx.array] = []
    sums: list[mx.array] = []
    for part in x.parts():
        # One block after the other: MLX would hold the scores of all at once.
        stacked = _after(x.stack(x.queries, part.queries), outputs[-1:])
        values = x.values[:, :, part.near]
        near = _masked(x.near(stacked, part), part.near_mask)
        far = _masked(x.far(stacked, part), part.far_mask) if _sees_prefix(part) else None
        sink, top = x.sink(stacked), near.max(axis=-1, keepdims=True)
        if far is not None:
            top = mx.maximum(top, far.max(axis=-1, keepdims=True))
        if sink is not None:
            top = mx.maximum(top, sink)
        near = exp_below(near, top)
        total = near.sum(axis=-1, keepdims=True)
        mixed = near.astype(values.dtype) @ values
        if far is not None and x.prefix_values is not None:
            far = exp_below(far, top)
            total = total + far.sum(axis=-1, keepdims=True)
            kept = x.merge(far.astype(values.dtype)) @ x.prefix_values[:, part.far]
            mixed = mixed + x.split(kept)
        if sink is not None:
            total = total + exp_below(sink, top)
        rows, heads, _, _ = x.queries.shape
        mixed = mixed / total.astype(values.dtype)
        outputs.append(mixed.reshape(rows, heads, -1, values.shape[-1]))
        sums.append(top + mx.log(total))
    return mx.concatenate(outputs, axis=2), mx.concatenate(sums, axis=2)


def _after(x: mx.array, others: list[mx.array]) -> mx.array:
    """Return `x`, which is not computed on before `others` are there."""
    return mx.depends([x], others)[0] if others else x


def _sees_prefix(part: _Part) -> bool:
    return bool(part.far.stop > part.far.start)


def _backward(
    x: _Inputs, cotangent: mx.array, output: mx.array, sums: mx.array
) -> tuple[mx.array, ...]:
    """Return the gradients with respect to every array of `x`, in order."""
    dtype, done = cotangent.dtype, 0
    d_queries: list[mx.array] = []
    d_keys, d_values = mx.zeros_like(x.keys), mx.zeros_like(x.values)
    d_prefix: list[mx.array] = []
    if x.prefix_keys is not None and x.prefix_values is not None:
        d_prefix = [mx.zeros_like(x.prefix_keys), mx.zeros_like(x.prefix_values)]
    d_sinks = None if x.sinks is None else mx.zeros(x.sinks.shape, mx.float32)
    for part in x.parts():
        stacked = _after(x.stack(x.queries, part.queries), [*d_queries[-1:], d_keys, d_values])
        d_out = _after(x.stack(cotangent, part.queries), [stacked])
        log_sum = sums[:, :, done : done + stacked.shape[2]]
        done += stacked.shape[2]
        # d softmax: weights * (d weights - their mean under the weights, which is d_out . output).
        out = x.stack(output, part.queries)
        mean = (d_out * out).astype(mx.float32).sum(axis=-1, keepdims=True)
        scores = x.near(stacked, part)
        weights = exp_below(_masked(scores, part.near_mask), log_sum)
        d_weights = d_out @ x.values[:, :, part.near].swapaxes(-1, -2)
        d_scores = x.slope(weights * (d_weights - mean), scores).astype(dtype)
        d_stacked = d_scores @ x.keys[:, :, part.near]
        d_keys = d_keys.at[:, :, part.near].add(d_scores.swapaxes(-1, -2) @ stacked)
        d_values = d_values.at[:, :, part.near].add(weights.astype(dtype).swapaxes(-1, -2) @ d_out)
        if x.prefix_keys is not None and x.prefix_values is not None and _sees_prefix(part):
            scores = x.far(stacked, part)
            weights = exp_below(_masked(scores, part.far_mask), log_sum)
            merged = x.merge(d_out)
            d_weights = x.split(merged @ x.prefix_values[:, part.far].swapaxes(-1, -2))
            d_scores = x.merge(x.slope(weights * (d_weights - mean), scores).astype(dtype))
            d_stacked = d_stacked + x.split(d_scores @ x.prefix_keys[:, part.far])
            own = d_scores.swapaxes(-1, -2) @ x.merge(stacked)
            d_prefix[0] = d_prefix[0].at[:, part.far].add(own)
            own = x.merge(weights.astype(dtype)).swapaxes(-1, -2) @ merged
            d_prefix[1] = d_prefix[1].at[:, part.far].add(own)
        sink = x.sink(stacked)
        if sink is not None and d_sinks is not None:
            lost = (-exp_below(sink, log_sum) * mean).sum(axis=0).reshape(d_sinks.shape[0], -1)
            d_sinks = d_sinks + lost.sum(axis=-1)
        d_queries.append(d_stacked.reshape(x.queries[:, :, part.queries].shape))
    others = d_prefix if d_sinks is None else [*d_prefix, d_sinks.astype(dtype)]
    return mx.concatenate(d_queries, axis=2), d_keys, d_values, *others


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
