"""The adapter on disk, in PEFT's layout but without PEFT, so that it moves between backends.

`adapter_config.json` + `adapter_model.safetensors`, keys
`base_model.model.<module>.lora_{A,B}.weight`; the weights' metadata name the hash of the base that
they were trained on. Left out: every PEFT type but LoRA on linears.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from safetensors.numpy import save

from offapi.backend import Arrays, LoraSpec, ModelSpec, TrainState
from offapi.episodes import Floats
from offapi.errors import BackendError, ModelError, nearest
from offapi.files.float_tensors import decode_floats, read_metadata, with_metadata
from offapi.files.weights_hash import sha256_weights
from offapi.randomness import lora_matrices

Shapes = Mapping[str, tuple[int, ...]]  # PEFT's parameter name -> shape in PEFT's layout

PREFIX = "base_model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NOT_PLAIN = ("use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern")
EXPORT_AGAIN = "Export the adapter again."
BASE_HASH = "base_sha256"  # in the metadata of the weights, which travel with them


@dataclass(frozen=True)
class Base:
    """The model that an adapter belongs to: its name, and the hash of its weights."""

    name: str = ""
    sha256: str = ""

    @classmethod
    def of(cls, name: str, folder: Path) -> Base:
        """Return the base of that name whose weights are in `folder`."""
        return cls(name, sha256_weights(folder))


def parameter(module: str, matrix: str) -> str:
    """Return PEFT's name of matrix "A" or "B" of `module`, a dotted path of the model."""
    return f"{PREFIX}{module}.lora_{matrix}.weight"


def module(name: str) -> str:
    """Return the dotted module path inside a PEFT parameter name."""
    return name.removeprefix(PREFIX).rsplit(".lora_", 1)[0]


def encode(adapter: Arrays, spec: LoraSpec, base: Base = Base()) -> Mapping[str, bytes]:
    """Return an adapter folder's files, name -> content."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(spec.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }
    tensors = {
        name: np.ascontiguousarray(adapter[name], dtype=np.float32) for name in sorted(adapter)
    }
    weights: bytes = save(tensors, metadata={"format": "pt"})
    if base.sha256:
        weights = with_metadata(weights, {"format": "pt", BASE_HASH: base.sha256})
    return {CONFIG: orjson.dumps(config, option=orjson.OPT_INDENT_2), WEIGHTS: weights}


def read_spec(folder: Path) -> LoraSpec:
    """Return the LoRA shape in `folder`; raise ModelError for an adapter that is not plain LoRA."""
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(
            "no adapter here.", where=str(folder), next_step=f"Name a folder that holds {CONFIG}."
        )
    config = _read_config(path)
    refused = [key for key in NOT_PLAIN if config.get(key)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or refused:
        raise ModelError(
            f"the adapter must be plain LoRA, got {', '.join(refused) or config.get('peft_type')}.",
            where=str(path),
            next_step="Export it as plain LoRA (no DoRA, rsLoRA, biases or patterns).",
        )
    targets, rank, alpha = (config.get(key) for key in ("target_modules", "r", "lora_alpha"))
    named = isinstance(targets, list) and all(isinstance(target, str) for target in targets)
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not named or not targets or type(rank) is not int or not number:
        raise ModelError(
            "`target_modules` must be a list of names, `r` a whole number and `lora_alpha` a"
            f" number, got {targets!r}, {rank!r} and {alpha!r}.",
            where=str(path),
            next_step=EXPORT_AGAIN,
        )
    try:
        return LoraSpec(rank=rank, alpha=float(alpha or 0), targets=tuple(sorted(targets)))
    except ValueError as error:
        raise ModelError(f"{error}.", where=str(path), next_step=EXPORT_AGAIN) from None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ModelError(
            f"not valid JSON ({error}).", where=str(path), next_step=EXPORT_AGAIN
        ) from None
    if not isinstance(config, dict):
        raise ModelError(
            f"the file must be a JSON object, got {type(config).__name__}.",
            where=str(path),
            next_step=EXPORT_AGAIN,
        )
    return config


def read(folder: Path) -> tuple[LoraSpec, Arrays]:
    """Return the shape and the fp32 arrays of the adapter in `folder`.

    Raise ModelError when it is missing or damaged.
    """
    spec = read_spec(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{WEIGHTS} is missing.", where=str(folder), next_step=EXPORT_AGAIN)
    tensors = decode_floats(path.read_bytes(), path, EXPORT_AGAIN)
    foreign = [
        name for name in tensors if ".lora_A.weight" not in name and ".lora_B.weight" not in name
    ]
    if foreign or not tensors:
        raise ModelError(
            f"not a LoRA adapter: the file has {foreign[:3] or 'no tensors'}.",
            where=str(path),
            next_step=EXPORT_AGAIN,
        )
    return spec, tensors


def read_base(folder: Path) -> Base:
    """Return what the adapter in `folder` says of its base; "" for what it does not say."""
    name = _read_config(folder / CONFIG).get("base_model_name_or_path")
    sha256 = read_metadata(folder / WEIGHTS).get(BASE_HASH)
    return Base(name if isinstance(name, str) else "", str(sha256 or ""))


def doubt_base(folder: Path, model: str) -> str:
    """Return what cannot be known of the base of the adapter in `folder`, or ""."""
    read_spec(folder)
    base = read_base(folder)
    if base.sha256:
        return ""
    doubt = "The adapter does not say by a hash which weights it was trained on"
    if base.name and _last_part(base.name) != _last_part(model):
        doubt += f", and names another base model ({base.name!r}, not {model!r})"
    return f"{doubt}. On another base than its own, its answers mean nothing."


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
            next_step="Load the adapter on the base model that it was trained on.",
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


def not_finite(name: str, spec: ModelSpec) -> ModelError:
    """Return the error for a loaded weight that is NaN or infinite."""
    return ModelError(
        f"the weight {name!r} has numbers that are not finite (NaN, or infinite in {spec.dtype}).",
        where=str(spec.path),
        next_step="The training or conversion that made the model failed: get another copy.",
    )


def check_finite(numbers: Floats, spec: ModelSpec) -> None:
    """Raise ModelError unless what the loaded model computed for a few tokens is finite."""
    if np.isfinite(numbers).all():
        return
    part = "with this adapter, " if spec.adapter else ""
    raise ModelError(
        f"{part}the model's logits are not finite: its numbers grow beyond {spec.dtype}.",
        where=str(spec.adapter or spec.path),
        next_step="The training that made it failed: take an earlier one, or train again.",
    )


def check_targets(shape: LoraSpec, linears: Iterable[str], where: Path) -> None:
    """Raise ModelError for a target that is not among the names of the model's linear layers."""
    known = set(linears)
    for target in shape.targets:
        if target not in known:
            what = f"the model has no linear layer {target!r} to adapt."
            raise ModelError(what, where=str(where), next_step=nearest(target, known))


def draw_matrices(shapes: Shapes, seed: int) -> Arrays:
    """Draw the initial matrices of every LoRA pair among `shapes`."""
    arrays: dict[str, Floats] = {}
    for path in sorted({module(name) for name in shapes}):
        a, b = parameter(path, "A"), parameter(path, "B")
        (rank, inputs), (outputs, _) = shapes[a], shapes[b]
        arrays[a], arrays[b] = lora_matrices(seed, path, rank, inputs, outputs)
    return arrays


def check_fit(arrays: Arrays, shapes: Shapes, where: str) -> None:
    """Raise ModelError unless the names and shapes of `arrays` are those of the model."""
    problem = misfit(arrays, shapes)
    if problem:
        raise ModelError(
            f"the adapter does not fit the model: {problem}.",
            where=where,
            next_step="Load the adapter on the base model that it was trained on.",
        )


def check_state(state: TrainState, shapes: Shapes) -> None:
    """Raise BackendError unless adapter and moments fit; at step 0 there are no moments."""
    parts = {"adapter": state.adapter, "exp_avg": state.exp_avg, "exp_avg_sq": state.exp_avg_sq}
    for part, arrays in parts.items():
        expected = {} if part != "adapter" and state.step == 0 else shapes
        problem = misfit(arrays, expected)
        if problem:
            raise BackendError(
                f"the saved {part} does not fit this model: {problem}.",
                next_step="Restore the state on the model that it was trained on.",
            )


def misfit(arrays: Arrays, shapes: Shapes) -> str:
    """Return how names or shapes of `arrays` differ from `shapes`; "" when they fit."""
    missing, extra = sorted(shapes.keys() - arrays.keys()), sorted(arrays.keys() - shapes.keys())
    if missing or extra:
        return (
            f"missing matrices: {len(missing)} {missing[:2]}; not in the model: {len(extra)}"
            f" {extra[:2]}"
        )
    wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
    first = wrong[0] if wrong else ""
    return first and f"{first} must have shape {shapes[first]}, got {arrays[first].shape}"


def _plain(shape: LoraSpec) -> tuple[int, float, tuple[str, ...]]:
    """Return a comparable form: the order of targets means nothing."""
    return shape.rank, shape.alpha, tuple(sorted(shape.targets))


def _describe(shape: LoraSpec) -> str:
    return f"rank {shape.rank}, alpha {shape.alpha:g} on {', '.join(sorted(shape.targets))}"
