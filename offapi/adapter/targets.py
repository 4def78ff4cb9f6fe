"""Which linear layers an adapter is on, and with which rank and scale: PEFT's rules for names.

The only place that knows patterns. Paths are transformers' on both backends. Left out: the head and
the embedding, whose adapters no backend computes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from offapi.adapter.names import Shapes, magnitude, parameter
from offapi.errors import ModelError, nearest
from offapi.model_spec import ALL_LINEAR, LINEARS, LoraSpec

Linears = Mapping[str, tuple[int, int]]  # path of a linear layer -> (out, in)

HEADS = ("lm_head", "embed_tokens", "embed_out", "output_layer", "wte")
ROUTERS = {"gate", "router", "shared_expert_gate"}  # a component of the path
LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")  # PEFT: the first number in the path


@dataclass(frozen=True)
class ModuleLora:
    """The low-rank term of one linear layer: its rank, and the factor of B @ A."""

    rank: int
    scale: float


def resolve(spec: LoraSpec, linears: Linears, where: Path | str) -> dict[str, ModuleLora]:
    """Return rank and scale of each adapted layer by path, in the order of `linears`.

    `linears` are all that may have an adapter: not the head. Raise ModelError for a target, layer
    or pattern that is nowhere in the model.
    """
    found = _matched(spec, linears)
    _check(spec, linears, found, where)
    return {path: _of_module(spec, path) for path in found}


def shapes_of(modules: Mapping[str, ModuleLora], linears: Linears, *, dora: bool) -> Shapes:
    """Return the shape of each parameter of an adapter on these layers, in PEFT's layout."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, lora in modules.items():
        outputs, inputs = linears[path]
        shapes[parameter(path, "A")] = (lora.rank, inputs)
        shapes[parameter(path, "B")] = (outputs, lora.rank)
        if dora:
            shapes[magnitude(path)] = (outputs,)
    return shapes


def names_head(path: str) -> bool:
    """Whether a path or a target is the head's or the embedding's."""
    return path.rsplit(".", 1)[-1] in HEADS


def layer_of(path: str) -> int | None:
    """Return the number of the layer that `path` is in; None outside of the layers."""
    found = LAYER.match(path)
    return int(found[1]) if found else None


def pattern_of(path: str, patterns: Iterable[str]) -> str | None:
    """Return the first of `patterns` that matches the end of `path`, as PEFT looks ranks up."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", path)), None)


def meant_by(pattern: str, paths: Iterable[str]) -> list[str]:
    """Return the paths whose end `pattern` matches."""
    return [path for path in paths if pattern_of(path, [pattern])]


def all_linear(linears: Iterable[str]) -> list[str]:
    """Return the layers that `all-linear` means: all but the routers of experts."""
    return [path for path in linears if not ROUTERS & set(path.split("."))]


def _matched(spec: LoraSpec, linears: Iterable[str]) -> list[str]:
    paths = [path for path in linears if not _matches(path, spec.exclude)]
    if _means_all(spec, paths):
        found = all_linear(paths)
    else:
        found = [path for path in paths if _matches(path, spec.targets)]
    whole = set() if isinstance(spec.targets, str) else set(spec.targets)
    return [
        path
        for path in found
        # as in PEFT, a target that is a whole path counts in any layer
        if not spec.layers or path in whole or layer_of(path) in spec.layers
    ]


def _means_all(spec: LoraSpec, paths: Iterable[str]) -> bool:
    if spec.targets == (ALL_LINEAR,):
        return True
    known = {path.rsplit(".", 1)[-1] for path in paths}
    return spec.targets == LINEARS and not known.issuperset(LINEARS)


def _matches(path: str, targets: Collection[str] | str) -> bool:
    if isinstance(targets, str):
        return re.fullmatch(targets, path) is not None
    return bool(targets) and any(end in targets for end in ends(path))


def ends(path: str) -> Iterable[str]:
    """Yield `a.b.c`, `b.c` and `c`."""
    while path:
        yield path
        path = path.partition(".")[2]


def _of_module(spec: LoraSpec, path: str) -> ModuleLora:
    rank = spec.ranks.get(pattern_of(path, spec.ranks) or "", spec.rank)
    alpha = spec.alphas.get(pattern_of(path, spec.alphas) or "", spec.alpha)
    return ModuleLora(rank, alpha / (math.sqrt(rank) if spec.rslora else rank))


def _check(spec: LoraSpec, linears: Iterable[str], found: list[str], where: Path | str) -> None:
    paths = list(linears)
    if not isinstance(spec.targets, str) and not _means_all(spec, paths):
        for target in spec.targets:
            if not any(target in ends(path) for path in paths):
                raise _unknown(target, paths, where)
    if missing := set(spec.layers) - {layer_of(path) for path in paths}:
        what = f"the model has no layer {min(missing)} to adapt."
        raise ModelError(what, where=str(where), next_step="Layers are counted from 0.")
    if not found:
        what = f"no linear layer of the model is meant by {describe_targets(spec)}."
        raise ModelError(what, where=str(where), next_step=f"Known: {_known(paths)}.")
    for pattern in (*spec.ranks, *spec.alphas):
        if not meant_by(pattern, found):
            what = f"no adapted layer is meant by {pattern!r}, which has a rank or an alpha."
            raise ModelError(what, where=str(where), next_step=f"Known: {_known(found)}.")


def _unknown(target: str, paths: list[str], where: Path | str) -> ModelError:
    if names_head(target):
        return ModelError(
            f"{target!r} cannot have an adapter here: only linear layers before the head can.",
            where=str(where),
            next_step="Take it out of the targets, or train every weight (`full = true`).",
        )
    what = f"the model has no linear layer {target!r} to adapt."
    return ModelError(what, where=str(where), next_step=nearest(target, _names(paths)))


def _names(paths: Iterable[str]) -> set[str]:
    return {path.rsplit(".", 1)[-1] for path in paths}


def _known(paths: Iterable[str]) -> str:
    return ", ".join(sorted(_names(paths)))


def describe_targets(spec: LoraSpec) -> str:
    """Return what `spec` says of its layers, for a message."""
    named = [spec.targets] if isinstance(spec.targets, str) else sorted(spec.targets)
    shown = ", ".join(named[:8]) + (" ..." if len(named) > 8 else "")
    layers = f" in layers {', '.join(map(str, spec.layers))}" if spec.layers else ""
    exclude = [spec.exclude] if isinstance(spec.exclude, str) else list(spec.exclude)
    return shown + layers + (f" less {', '.join(exclude)}" if exclude else "")
