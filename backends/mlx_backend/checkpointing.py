"""Layers whose gradients are computed in order, and, where memory asks for it, from inputs alone.

MLX evaluates a gradient's many results last of all, so what each needs would be kept to the end:
here a layer's trained arrays get theirs before the layer below is reached. Where a layer is
recomputed (arXiv 1604.06174), its gradient reaches what it is given and nothing that it merely
finds: so its trained arrays and a shared prefix's keys and values are inputs, and its own keys and
values outputs. Left out: moving what is kept
to another device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import psutil
from mlx.utils import tree_flatten, tree_unflatten

from offapi.activation_memory import FreeMemory
from offapi.model_spec import ModelSpec

from .cache import Block
from .run_ahead import RunAhead

Arrays = Sequence[mx.array]


@dataclass
class Checkpointing:
    """How the layers of one model are differentiated, if they are: as the micro-batch needs it."""

    memory: FreeMemory
    ahead: RunAhead
    differentiated: bool = False
    recomputed: bool = False
    shared: bool = False  # whether a prefix comes first, whose keys and values the rows see

    @contextmanager
    def of(self, tokens: int, shared: bool) -> Iterator[None]:
        """Trace and compute a micro-batch of `tokens` tokens inside the context."""
        self.differentiated, self.recomputed = True, self.memory.recomputes(tokens)
        self.shared = shared
        try:
            with self.ahead.held(tokens, self.recomputed):
                yield
        finally:
            self.differentiated = self.recomputed = False


def wrap(model: Any, lora: Mapping[str, Any], spec: ModelSpec) -> Checkpointing:
    """Let the layers of `model` ask the result what to do; what trains is what `lora` holds."""
    if not spec.full:
        model.freeze()
        for module in lora.values():
            module.unfreeze(keys=["lora_a", "lora_b", "m"])
    mx.eval(model.parameters())  # or what is read later would count as free
    each: Any = tree_flatten(model.trainable_parameters())
    trained = sum(array.size for _, array in each)
    free = FreeMemory(spec.checkpointing, spec.activation_bytes, free_bytes(), trained)
    switch = Checkpointing(free, RunAhead.of(spec))
    kinds: dict[type, type] = {}
    for layer in model.layers:
        kind = type(layer)
        if kind not in kinds:
            kinds[kind] = _asking(kind, switch)
        layer.__class__ = kinds[kind]
    return switch


def free_bytes() -> float:
    """Return the bytes that are free on the device: a GPU of Apple's shares the machine's."""
    if mx.default_device().type == mx.DeviceType.gpu:
        info = mx.device_info()
        total = info.get("max_recommended_working_set_size") or info["total_memory"]
        return float(total) - mx.get_active_memory()
    return float(psutil.virtual_memory().available)


def _asking(kind: Any, switch: Checkpointing) -> type:
    """Return the class of a layer that asks `switch`."""

    def call(layer: Any, *given: Any, **named: Any) -> Any:
        if not switch.differentiated:
            return kind.__call__(layer, *given, **named)
        return _Call(kind, layer, (given, named), switch).result()

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


class _Call:
    """One call of a layer, as a function of the arrays that it is given, finds or trains."""

    def __init__(self, kind: Any, layer: Any, given: Any, switch: Checkpointing) -> None:
        self.kind, self.layer, self.given, self.switch = kind, layer, given, switch
        self.cache = next((each for each in _leaves(given) if isinstance(each, Block)), None)
        own: Any = tree_flatten(layer.trainable_parameters())
        self.names = [name for name, _ in own]
        prefix = () if self.cache is None or self.cache.prefix is None else self.cache.prefix
        # A layer that follows another finds that one's keys and values.
        self.follows = hasattr(self.cache, "keys")
        known = (self.cache.keys, self.cache.values) if self.cache and self.follows else ()
        arrays = [each for each in _leaves(given) if _has_gradient(each)]
        self.counts = (len(arrays), len(own), len(prefix))
        self.arrays = (*arrays, *(array for _, array in own), *prefix, *known)
        # The order of a gradient's sums: rows reach the keys and values of a prefix first.
        self.keys_first = switch.shared and not prefix

    def result(self) -> Any:
        """Call the layer, and return what it returns."""
        in_order: Any = _in_order
        recompute = self.switch.recomputed
        outputs = (
            recomputed(self.run)(*self.arrays) if recompute else self.run(*in_order(*self.arrays))
        )
        if self.cache and not self.follows:
            ours = outputs[:2] if self.keys_first else outputs[-2:]
            outputs = outputs[2:] if self.keys_first else outputs[:-2]
            self.cache.keys, self.cache.values = ours
        return _filled(self.returned, iter(outputs))

    def run(self, *arrays: mx.array) -> tuple[mx.array, ...]:
        """Return the arrays that the layer returns or stores."""
        ends = [sum(self.counts[: i + 1]) for i in range(3)]
        trained = tree_unflatten(list(zip(self.names, arrays[ends[0] : ends[1]], strict=True)))
        given, named = _filled(self.given, iter(arrays))
        with _found(self.layer, self.cache, trained, arrays[ends[1] : ends[2]], arrays[ends[2] :]):
            self.returned = self.kind.__call__(self.layer, *given, **named)
            outputs = [each for each in _leaves(self.returned) if _has_gradient(each)]
            if self.cache is None or self.follows:
                return tuple(outputs)
            own = [self.cache.keys, self.cache.values]
            return tuple(own + outputs if self.keys_first else outputs + own)


def _has_gradient(leaf: Any) -> bool:
    return isinstance(leaf, mx.array) and mx.issubdtype(leaf.dtype, mx.floating)


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, tuple | list):
        return [leaf for part in tree for leaf in _leaves(part)]
    if type(tree) is dict:
        return [leaf for part in tree.values() for leaf in _leaves(part)]
    return [tree]


def _filled(tree: Any, arrays: Iterator[mx.array]) -> Any:
    """Return `tree` with the next of `arrays` in place of each that has a gradient."""
    if isinstance(tree, tuple | list):
        return type(tree)([_filled(part, arrays) for part in tree])
    if type(tree) is dict:
        return {name: _filled(part, arrays) for name, part in tree.items()}
    return next(arrays) if _has_gradient(tree) else tree


@contextmanager
def _found(
    layer: Any, cache: Block | None, trained: Any, prefix: Arrays, known: Arrays
) -> Iterator[None]:
    """Let `layer` find these arrays inside the context."""
    before, seen = layer.trainable_parameters(), None if cache is None else vars(cache).copy()
    layer.update(trained)
    if cache is not None and prefix:
        cache.prefix = (prefix[0], prefix[1])
    if cache is not None and known:
        cache.keys, cache.values = known
    try:
        yield
    finally:
        layer.update(before)
        if cache is not None and seen is not None:
            vars(cache).update(seen)


def recomputed(run: Callable[..., tuple[mx.array, ...]]) -> Callable[..., tuple[mx.array, ...]]:
    """Return `run`, whose backward pass recomputes it, not before it is reached."""

    forward: Any = mx.custom_function(run)

    @forward.vjp  # type: ignore[untyped-decorator]
    def backward(arrays: Arrays, cotangents: Arrays, _: Any) -> Arrays:
        cotangents = list(cotangents)
        _, slopes = mx.vjp(run, mx.depends(list(arrays), cotangents), cotangents)
        return _first_last(slopes)

    return forward  # type: ignore[no-any-return]


@mx.custom_function
def _in_order(*arrays: mx.array) -> tuple[mx.array, ...]:
    return arrays


@_in_order.vjp
def _in_order_vjp(_: Any, cotangents: Arrays, __: Any) -> Arrays:
    return _first_last(cotangents)


def _first_last(slopes: Arrays) -> Arrays:
    """Return the gradients, the first of which waits for all others."""
    first, *others = slopes
    if not others:
        return [first]
    return [*mx.depends([first], others), *others]
