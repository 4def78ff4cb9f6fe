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
from offapi.backend import LoraSpec, ModelSpec

from .policy import Policy, RowAdapters, to_mlx

Pair = tuple[mx.array, mx.array]  # A (in, rank) and B (rank, out)
OWN = 0  # the number of the policy's own adapter


@dataclass(frozen=True, eq=False)
class Adapter:
    """The matrices of an adapter by the dotted path of their layer; none for the base alone."""

    pairs: Mapping[str, Pair]
    scale: float


@dataclass
class Mixture:
    """The adapters of the rows of one forward pass."""

    numbers_R: mx.array  # of each row's adapter
    scales_R: mx.array
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
        self.stacks: dict[str, tuple[Pair | None, tuple[int, ...], mx.array, mx.array]] = {}
        for name, folder in named.items():
            self.load(name, folder)

    def load(self, name: str, folder: Path | None) -> None:
        """Add the adapter of a PEFT folder, or the base alone, by `name`."""
        new = _load(self.policy, folder, self.model)
        self.others.append(new)
        self.numbers[name] = len(self.others)
        self.stacks.clear()
        _wrap(self.policy, set(new.pairs) | set(self.policy.lora))

    @contextmanager
    def of_rows(self, names: Sequence[str | None]) -> Iterator[None]:
        """Compute with the adapters of that name, one for each row of the forward pass."""
        if not self.others or not any(self.numbers[name] for name in names):
            yield
            return
        scales = [self._own_scale(), *(each.scale for each in self.others)]
        numbers = [self.numbers[name] for name in names]
        scales_R = mx.array([scales[number] for number in numbers])
        self.mixture = Mixture(mx.array(numbers), scales_R)
        self.policy.rows.adapters = self
        try:
            yield
        finally:
            self.policy.rows.adapters = self.mixture = None

    def _own_scale(self) -> float:
        return 0.0 if self.policy.shape is None else self.policy.shape.scale

    def add(self, path: str, x: mx.array, y: mx.array) -> mx.array:
        """Return `y`, the base's output at layer `path`, with each row's low-rank term."""
        ranks, a, b = self._stack(path)
        if self.mixture is None or not any(ranks):
            return y
        kept_R1K = self.mixture.kept(ranks, a.dtype)
        z = ((x @ a) * kept_R1K) @ b
        return y + (self.mixture.scales_R[:, None, None] * z).astype(y.dtype)

    def _stack(self, path: str) -> tuple[tuple[int, ...], mx.array, mx.array]:
        """Return the ranks of all adapters at `path`, and their matrices side by side."""
        layer = self.policy.lora.get(path)
        own = None if layer is None else (layer.lora_a, layer.lora_b)
        before = self.stacks.get(path)
        if before is None or _changed(before[0], own):
            pairs = [own, *(each.pairs.get(path) for each in self.others)]
            present = [pair for pair in pairs if pair is not None]
            ranks = tuple(0 if pair is None else pair[0].shape[1] for pair in pairs)
            a = mx.concatenate([pair[0] for pair in present], axis=1)
            b = mx.concatenate([pair[1] for pair in present], axis=0)
            before = self.stacks[path] = (own, ranks, a, b)
        return before[1:]


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


def _changed(before: Pair | None, now: Pair | None) -> bool:
    """Whether training has put other matrices in place."""
    if before is None or now is None:
        return before is not now
    return before[0] is not now[0] or before[1] is not now[1]


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
        return Adapter({}, 0.0)
    shape, arrays = adapter.read_requested(ModelSpec(path=model, adapter=folder))
    assert shape is not None
    assert arrays is not None
    linears = policy.linears
    adapter.check_targets(shape, (path.rsplit(".", 1)[-1] for path in linears), model)
    adapter.check_fit(arrays, _shapes(linears, shape), str(folder))
    matrices = to_mlx(arrays)
    pairs = {
        path: (matrices[adapter.parameter(path, "A")], matrices[adapter.parameter(path, "B")])
        for path in _targeted(linears, shape)
    }
    return Adapter(pairs, shape.scale)


def _targeted(linears: Mapping[str, Any], shape: LoraSpec) -> list[str]:
    endings = tuple(f".{target}" for target in shape.targets)
    return [path for path in linears if path.endswith(endings)]


def _shapes(linears: Mapping[str, Any], shape: LoraSpec) -> adapter.Shapes:
    """Return the shape of each matrix, in PEFT's layout."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in _targeted(linears, shape):
        outputs, inputs = linears[path].weight.shape
        inputs = inputs * 32 // getattr(linears[path], "bits", 32)  # packed, if quantised
        shapes[adapter.parameter(path, "A")] = (shape.rank, inputs)
        shapes[adapter.parameter(path, "B")] = (outputs, shape.rank)
    return shapes
