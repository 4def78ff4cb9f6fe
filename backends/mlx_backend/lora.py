"""Further adapters on one loaded model, and the layers that give each row its own.

One product computes all adapters of a layer side by side, and a mask keeps of it what is the
row's (as S-LoRA's batches, arXiv 2311.03285, for the few adapters of one machine). While no row
has an adapter other than the policy's, the layers are as they were loaded. Left out: training them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.utils import tree_unflatten

from offapi import adapter
from offapi.model_spec import ModelSpec

from .dora import lengths, rescale
from .injection import sizes
from .policy import Policy, RowAdapters, to_mlx

OWN = 0  # the number of the policy's own adapter


@dataclass(frozen=True, eq=False)
class Term:
    """What an adapter adds to a layer: A (in, rank), scale * B (rank, out), and DoRA's factor."""

    a: mx.array
    b: mx.array
    factor: mx.array | None = None  # of the layer's rows, (out,)


@dataclass(frozen=True, eq=False)
class Adapter:
    """The terms of an adapter by the dotted path of their layer; none for the base alone."""

    terms: Mapping[str, Term]


@dataclass(frozen=True, eq=False)
class Stack:
    """The terms of all adapters at one layer side by side."""

    own: tuple[mx.array, ...]  # the policy's arrays that it was made of
    ranks: tuple[int, ...]
    a: mx.array
    b: mx.array
    factors: mx.array | None  # (adapters, out); None without DoRA


@dataclass
class Mixture:
    """The adapters of the rows of one forward pass."""

    numbers_R: mx.array  # of each row's adapter
    masks: dict[tuple[int, ...], mx.array] = field(default_factory=dict)  # by ranks

    def kept(self, ranks: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
        """Return which columns of a product with all adapters are each row's, (R, 1, columns)."""
        if ranks not in self.masks:
            owners = [number for number, rank in enumerate(ranks) for _ in range(rank)]
            own_RK = mx.array(owners) == self.numbers_R[:, None]
            self.masks[ranks] = own_RK[:, None].astype(dtype)
        return self.masks[ranks]


class Adapters:
    """The adapters of one engine by name. None names the policy's own, whose matrices may train."""

    def __init__(self, policy: Policy, named: Mapping[str, Path | None], model: Path) -> None:
        self.policy, self.model = policy, model
        self.numbers: dict[str | None, int] = {None: OWN}
        self.others: list[Adapter] = []
        self.mixture: Mixture | None = None
        self.stacks: dict[str, Stack] = {}
        for name, folder in named.items():
            self.load(name, folder)

    def load(self, name: str, folder: Path | None) -> None:
        """Add the adapter of a PEFT folder, or the base alone, by `name`."""
        new = _load(self.policy, folder, self.model)
        self.others.append(new)
        self.numbers[name] = len(self.others)
        self.stacks.clear()
        _wrap(self.policy, set(new.terms) | set(self.policy.lora))

    @contextmanager
    def of_rows(self, names: Sequence[str | None]) -> Iterator[None]:
        """Compute with the adapters of that name, one for each row of the forward pass."""
        if not self.others or not any(self.numbers[name] for name in names):
            yield
            return
        self.mixture = Mixture(mx.array([self.numbers[name] for name in names]))
        self.policy.rows.adapters = self
        try:
            yield
        finally:
            self.policy.rows.adapters = self.mixture = None

    def add(self, path: str, x: mx.array, y: mx.array) -> mx.array:
        """Return `y`, the base's output at layer `path`, with each row's low-rank term."""
        stack = self._stack(path)
        if self.mixture is None or not any(stack.ranks):
            return y
        kept_R1K = self.mixture.kept(stack.ranks, stack.a.dtype)
        z = ((x @ stack.a) * kept_R1K) @ stack.b
        if stack.factors is None:
            return y + z.astype(y.dtype)
        factor_R1O = stack.factors[self.mixture.numbers_R][:, None]
        return rescale(y + z, self.policy.linears[path], factor_R1O).astype(y.dtype)

    def _stack(self, path: str) -> Stack:
        """Return the terms of all adapters at `path`, made anew when training changed its own."""
        layer = self.policy.lora.get(path)
        own = () if layer is None else arrays_of(layer)
        stack = self.stacks.get(path)
        if stack is None or any(a is not b for a, b in zip(stack.own, own, strict=True)):
            mine = None if layer is None else own_term(layer)
            terms = [mine, *(each.terms.get(path) for each in self.others)]
            stack = self.stacks[path] = _side_by_side(own, terms)
        return stack


def _side_by_side(own: tuple[mx.array, ...], terms: Sequence[Term | None]) -> Stack:
    present = [term for term in terms if term is not None]
    ranks = tuple(0 if term is None else term.a.shape[1] for term in terms)
    a = mx.concatenate([term.a for term in present], axis=1)
    b = mx.concatenate([term.b for term in present], axis=0)
    factors = [None if term is None else term.factor for term in terms]
    if all(factor is None for factor in factors):
        return Stack(own, ranks, a, b, None)
    ones = mx.ones(b.shape[1])
    return Stack(own, ranks, a, b, mx.stack([ones if f is None else f for f in factors]))


def arrays_of(layer: Any) -> tuple[mx.array, ...]:
    """Return what of a LoRA layer is trained."""
    dora = (layer.m,) if "m" in layer else ()
    return layer.lora_a, layer.lora_b, *dora


def own_term(layer: Any) -> Term:
    """Return what a LoRA layer of the policy adds."""
    factor = layer.factor() if "m" in layer else None
    return Term(layer.lora_a, layer.scale * layer.lora_b, factor)


class RowLoRALinear(Module):
    """A linear layer that asks, if rows have adapters of their own, for those."""

    def __init__(self, path: str, rows: RowAdapters, layer: Any, base: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path, self.rows, self.layer, self.base = path, rows, layer, base

    def __call__(self, x: mx.array) -> mx.array:
        adapters = self.rows.adapters
        result: mx.array = (
            self.layer(x) if adapters is None else adapters.add(self.path, x, self.base(x))
        )
        return result


def _wrap(policy: Policy, paths: set[str]) -> None:
    """Put the layers in place that know rows, once for each path."""
    new = {
        path: RowLoRALinear(path, policy.rows, policy.lora.get(path, linear), linear)
        for path, linear in policy.linears.items()
        if path in paths - policy.wrapped
    }
    policy.model.update_modules(tree_unflatten(list(new.items())))
    policy.wrapped |= set(new)


def _load(policy: Policy, folder: Path | None, model: Path) -> Adapter:
    """Read a PEFT folder; raise ModelError for one that is missing, damaged or does not fit."""
    if folder is None:
        return Adapter({})
    shape, arrays = adapter.read_requested(ModelSpec(path=model, adapter=folder))
    assert shape is not None
    assert arrays is not None
    linears = policy.linears
    known = sizes(linears)
    modules = adapter.resolve(shape, known, folder)
    adapter.check_fit(arrays, adapter.shapes_of(modules, known, dora=shape.dora), str(folder))
    matrices = to_mlx(arrays)
    return Adapter(
        {path: _term(path, matrices, linears[path], lora) for path, lora in modules.items()}
    )


def _term(
    path: str, matrices: Mapping[str, mx.array], linear: Any, lora: adapter.ModuleLora
) -> Term:
    a, b = (matrices[adapter.parameter(path, matrix)] for matrix in "AB")
    wanted = matrices.get(adapter.magnitude(path))
    factor = None if wanted is None else wanted / lengths(linear, a, lora.scale * b)
    return Term(a, lora.scale * b, factor)
