"""The adapter on disk, in PEFT's layout but without PEFT, so that it moves between backends.

`adapter_config.json` + `adapter_model.safetensors`, keys
`base_model.model.<module>.lora_{A,B}.weight`. Left out: every PEFT type but LoRA on linears.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from safetensors.numpy import load, save

from offapi.backend import Arrays, LoraSpec, ModelSpec, TrainState
from offapi.episodes import Floats
from offapi.errors import BackendError, ModelError, nearest
from offapi.randomness import lora_matrices

Shapes = Mapping[str, tuple[int, ...]]  # PEFT's parameter name -> shape in PEFT's layout

PREFIX = "base_model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NOT_PLAIN = ("use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern")
EXPORT_AGAIN = "Export the adapter again."


def parameter(module: str, matrix: str) -> str:
    """Return PEFT's name of matrix "A" or "B" of `module`, a dotted path of the model."""
    return f"{PREFIX}{module}.lora_{matrix}.weight"


def module(name: str) -> str:
    """Return the dotted module path inside a PEFT parameter name."""
    return name.removeprefix(PREFIX).rsplit(".lora_", 1)[0]


def encode(adapter: Arrays, spec: LoraSpec, base: str = "") -> Mapping[str, bytes]:
    """Return an adapter folder's files, name -> content; `base` names the locked base model."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
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
    return {CONFIG: orjson.dumps(config, option=orjson.OPT_INDENT_2), WEIGHTS: weights}


def read_spec(folder: Path) -> LoraSpec:
    """Return the LoRA shape in `folder`; raise ModelError for an adapter that is not plain LoRA."""
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(
            "no adapter here.", where=str(folder), next_step=f"Name a folder that holds {CONFIG}."
        )
    try:
        config: dict[str, Any] = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ModelError(
            f"not valid JSON ({error}).", where=str(path), next_step=EXPORT_AGAIN
        ) from None
    refused = [key for key in NOT_PLAIN if config.get(key)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or refused:
        raise ModelError(
            f"the adapter must be plain LoRA, got {', '.join(refused) or config.get('peft_type')}.",
            where=str(path),
            next_step="Export it as plain LoRA (no DoRA, rsLoRA, biases or patterns).",
        )
    targets = config.get("target_modules")
    if not isinstance(targets, list) or not isinstance(config.get("r"), int):
        raise ModelError(
            "`r` must be an integer and `target_modules` a list.",
            where=str(path),
            next_step=EXPORT_AGAIN,
        )
    try:
        return LoraSpec(
            rank=config["r"], alpha=float(config["lora_alpha"]), targets=tuple(sorted(targets))
        )
    except ValueError as error:
        raise ModelError(f"{error}.", where=str(path), next_step=EXPORT_AGAIN) from None


def read(folder: Path) -> tuple[LoraSpec, Arrays]:
    """Return the shape and the fp32 arrays of the adapter in `folder`.

    Raise ModelError when it is missing or damaged.
    """
    spec = read_spec(folder)
    path = folder / WEIGHTS
    try:
        tensors = load(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(
            f"{WEIGHTS} is missing.", where=str(folder), next_step=EXPORT_AGAIN
        ) from None
    except Exception as error:
        raise ModelError(
            f"damaged safetensors ({error}).", where=str(path), next_step=EXPORT_AGAIN
        ) from error
    foreign = [
        name for name in tensors if ".lora_A.weight" not in name and ".lora_B.weight" not in name
    ]
    if foreign or not tensors:
        raise ModelError(
            f"not a LoRA adapter: the file has {foreign[:3] or 'no tensors'}.",
            where=str(path),
            next_step=EXPORT_AGAIN,
        )
    return spec, {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def read_requested(spec: ModelSpec) -> tuple[LoraSpec | None, Arrays | None]:
    """Return the LoRA shape that `spec` asks for, and the matrices of its adapter folder.

    The shape is None for inference alone; the matrices are None if they are to be drawn. Raise
    ModelError for a bad folder, or one whose shape is not `spec.lora`.
    """
    if spec.adapter is None:
        return spec.lora, None
    shape, arrays = read(spec.adapter)
    if spec.lora is not None and _plain(shape) != _plain(spec.lora):
        raise ModelError(
            f"the adapter has {_describe(shape)}; the recipe asks for {_describe(spec.lora)}.",
            where=str(spec.adapter),
            next_step="Set `lora` to the adapter's shape, or start without the adapter.",
        )
    return shape, arrays


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
            f"{len(missing)} matrices are missing {missing[:2]}, {len(extra)} are not in the model"
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
