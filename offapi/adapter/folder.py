"""An adapter's folder, read and written: PEFT's layout without PEFT, so that it moves anywhere.

`adapter_config.json` + `adapter_model.safetensors`; the weights' metadata name the hash of the base
that they were trained on. mlx-lm's folders are read too (`mlx_lm_files`). Left out: every PEFT type
but LoRA on linear layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import orjson
from safetensors.numpy import save

from offapi.adapter import mlx_lm_files
from offapi.adapter.checks import check_fit
from offapi.adapter.names import (
    CONFIG,
    EXPORT_AGAIN,
    FIT,
    MAGNITUDE,
    PREFIX,
    WEIGHTS,
    module,
    modules,
    parameter,
)
from offapi.adapter.peft_config import TRAIN_WHOLE, config_of, read_config, spec_of
from offapi.adapter.targets import (
    ModuleLora,
    describe_targets,
    ends,
    meant_by,
    names_head,
    resolve,
    shapes_of,
)
from offapi.episodes import Floats
from offapi.errors import ModelError
from offapi.files.float_tensors import decode_floats, read_metadata, with_metadata
from offapi.files.weights_hash import sha256_weights
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.optimizer import Arrays

T = TypeVar("T")
BASE_HASH = "base_sha256"  # in the metadata of the weights, which travel with them
BASE_BITS = "base_bits"  # beside it, where the base was quantised for the training
MATRICES = (".lora_A.weight", ".lora_B.weight", MAGNITUDE)
WRAPPERS = ("model.language_model.", "language_model.model.", "language_model.")


@dataclass(frozen=True)
class Base:
    """The model that an adapter belongs to: its name, and the hash of its weights.

    `bits` are those that it was quantised to while it was loaded; None: not at all.
    """

    name: str = ""
    sha256: str = ""
    bits: int | None = None

    @classmethod
    def of(cls, name: str, folder: Path, bits: int | None = None) -> Base:
        """Return the base of that name whose weights are in `folder`."""
        return cls(name, sha256_weights(folder), bits)


def encode(adapter: Arrays, spec: LoraSpec, base: Base = Base()) -> Mapping[str, bytes]:
    """Return an adapter folder's files, name -> content."""
    config = config_of(spec, adapter, base.name)
    tensors = {
        name: np.ascontiguousarray(adapter[name], dtype=np.float32) for name in sorted(adapter)
    }
    weights: bytes = save(tensors, metadata={"format": "pt"})
    if base.sha256:
        bits = {} if base.bits is None else {BASE_BITS: str(base.bits)}
        weights = with_metadata(weights, {"format": "pt", BASE_HASH: base.sha256, **bits})
    return {CONFIG: orjson.dumps(config, option=orjson.OPT_INDENT_2), WEIGHTS: weights}


def read_spec(folder: Path) -> LoraSpec:
    """Return the LoRA shape in `folder`; raise ModelError for an adapter that is refused."""
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(
            "no adapter here.", where=str(folder), next_step=f"Name a folder that holds {CONFIG}."
        )
    config = read_config(path)
    if mlx_lm_files.wrote(config):
        return mlx_lm_files.read(folder, config)[0]
    return spec_of(config, path)


def weights_file(folder: Path) -> Path:
    """Return the file with the matrices: PEFT's, or mlx-lm's where only that is there."""
    other = folder / mlx_lm_files.WEIGHTS
    return other if other.is_file() and not (folder / WEIGHTS).is_file() else folder / WEIGHTS


def read(folder: Path) -> tuple[LoraSpec, Arrays]:
    """Return the shape and the fp32 arrays of the adapter in `folder`, by PEFT's names.

    Raise ModelError when it is missing, damaged or refused.
    """
    spec = read_spec(folder)
    config = read_config(folder / CONFIG)
    if mlx_lm_files.wrote(config):
        return mlx_lm_files.read(folder, config)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{WEIGHTS} is missing.", where=str(folder), next_step=EXPORT_AGAIN)
    tensors = decode_floats(path.read_bytes(), path, EXPORT_AGAIN)
    _refuse_others(tensors, path)
    arrays = {_of_text_model(name): array for name, array in tensors.items()}
    if arrays.keys() != tensors.keys():  # the names in the config are the wrapper's as well
        return replace(spec, targets=tuple(modules(arrays)), layers=(), exclude=()), arrays
    return _narrowed(spec, modules(arrays)), arrays


def _refuse_others(tensors: Mapping[str, Floats], path: Path) -> None:
    foreign = [name for name in tensors if not name.endswith(MATRICES)]
    heads = [name for name in tensors if names_head(module(name.replace(".base_layer", "")))]
    heads += [name for name in foreign if any(map(names_head, ends(name.rpartition(".")[0])))]
    if heads:
        raise ModelError(
            f"the adapter is on the head or the embedding too ({heads[0]}), which no backend here"
            " computes.",
            where=str(path),
            next_step=TRAIN_WHOLE,
        )
    if foreign or not tensors:
        raise ModelError(
            f"not a LoRA adapter: the file has {foreign[:3] or 'no tensors'}.",
            where=str(path),
            next_step=EXPORT_AGAIN,
        )


def _of_text_model(name: str) -> str:
    """Return the name in the text model alone of a parameter of a model that sees images too."""
    path = name.removeprefix(PREFIX)
    for wrapper in WRAPPERS:
        if path.startswith(wrapper):
            return f"{PREFIX}model.{path.removeprefix(wrapper)}"
    return name


def _narrowed(spec: LoraSpec, paths: list[str]) -> LoraSpec:
    """Return `spec` without names that mean nothing in this file, which PEFT lets pass."""
    targets = spec.targets
    if not isinstance(targets, str):
        known = {end for path in paths for end in ends(path)}
        targets = tuple(target for target in targets if target in known) or targets
    ranks, alphas = _meant(spec.ranks, paths), _meant(spec.alphas, paths)
    return replace(spec, targets=targets, ranks=ranks, alphas=alphas)


def _meant(patterns: Mapping[str, T], paths: list[str]) -> dict[str, T]:
    return {key: value for key, value in patterns.items() if meant_by(key, paths)}


def read_base(folder: Path) -> Base:
    """Return what the adapter in `folder` says of its base; "" for what it does not say."""
    config = read_config(folder / CONFIG)
    name = config.get("base_model_name_or_path") or config.get("model")  # PEFT's, mlx-lm's
    metadata = read_metadata(folder / WEIGHTS)
    bits = str(metadata.get(BASE_BITS, ""))
    return Base(
        name if isinstance(name, str) else "",
        str(metadata.get(BASE_HASH) or ""),
        int(bits) if bits.isdecimal() else None,
    )


def doubt_base(folder: Path, model: str, quantize: int | None = None) -> str:
    """Return what speaks against using the adapter in `folder` on its base in `quantize` bits.

    None: on the base as it is stored. Return "" where nothing does.
    """
    read_spec(folder)
    base = read_base(folder)
    if base.sha256 and base.bits != quantize:
        return (
            f"The adapter was trained on the base {in_bits(base.bits)}, and is used on it"
            f" {in_bits(quantize)}: its answers may differ from those that its run measured."
        )
    if base.sha256:
        return ""
    doubt = "The adapter does not say by a hash which weights it was trained on"
    if base.name and _last_part(base.name) != _last_part(model):
        doubt += f", and names another base model ({base.name!r}, not {model!r})"
    return f"{doubt}. On another base than its own, its answers mean nothing."


def in_bits(bits: int | None) -> str:
    """Return how a sentence says the bits that a base is loaded in."""
    return "as it is stored" if bits is None else f"in {bits} bits"


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def _check_base(folder: Path, model: Path) -> None:
    """Raise ModelError for an adapter that was trained on other weights than those of `model`."""
    base = read_base(folder)
    if base.sha256 and base.sha256 != sha256_weights(model):
        named = f" ({base.name})" if base.name else ""
        raise ModelError(
            f"the adapter was trained on another base model{named} than {model.name}.",
            where=str(folder),
            next_step=FIT,
        )


def read_requested(spec: ModelSpec) -> tuple[LoraSpec | None, Arrays | None]:
    """Return the LoRA shape that `spec` asks for, and the matrices of its adapter folder.

    The shape is None for inference alone; the matrices are None if they are to be drawn. Raise
    ModelError for a bad folder, or one whose shape is not `spec.lora`.
    """
    if spec.adapter is None:
        return spec.lora, None
    shape, arrays = read(spec.adapter)
    _check_base(spec.adapter, spec.path)
    if spec.lora is not None and _plain(shape) != _plain(spec.lora):
        raise ModelError(
            f"the adapter has {_describe(shape)}; the recipe asks for {_describe(spec.lora)}.",
            where=str(spec.adapter),
            next_step="Set `lora` to the adapter's shape, or start without the adapter.",
        )
    return shape, arrays


def _plain(shape: LoraSpec) -> LoraSpec:
    """Return a comparable form: the order of names means nothing."""
    targets, exclude = (
        each if isinstance(each, str) else tuple(sorted(each))
        for each in (shape.targets, shape.exclude)
    )
    layers = tuple(sorted(shape.layers))
    return replace(shape, targets=targets, exclude=exclude, layers=layers)


def _describe(shape: LoraSpec) -> str:
    kind = ("rsLoRA, " if shape.rslora else "") + ("DoRA, " if shape.dora else "")
    return f"{kind}rank {shape.rank}, alpha {shape.alpha:g} on {describe_targets(shape)}"


def resolve_arrays(spec: LoraSpec, arrays: Arrays, where: Path) -> dict[str, ModuleLora]:
    """Return rank and scale of each layer that `arrays` are on, without the model.

    Raise ModelError where the shape means other layers than those.
    """
    linears = {
        path: (len(arrays[parameter(path, "B")]), arrays[parameter(path, "A")].shape[1])
        for path in modules(arrays)
    }
    resolved = resolve(spec, linears, where)
    check_fit(arrays, shapes_of(resolved, linears, dora=spec.dora), str(where))
    return resolved
