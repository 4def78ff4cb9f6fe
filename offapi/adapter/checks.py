"""Checks of an adapter's numbers and shapes against the loaded model, and the first matrices."""

from __future__ import annotations

import numpy as np

from offapi.adapter.names import FIT, Shapes, modules, parameter
from offapi.episodes import Floats
from offapi.errors import BackendError, ModelError
from offapi.model_spec import ModelSpec
from offapi.optimizer import Arrays, TrainState
from offapi.randomness import lora_matrices


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


def check_full(spec: ModelSpec) -> None:
    """Raise BackendError for a spec whose weights cannot all be trained."""
    if spec.lora is not None or spec.adapter is not None:
        raise BackendError(
            "a model is trained in full or with an adapter, not both.",
            next_step="Leave out `full`, or the adapter.",
        )
    if spec.quantize is not None:
        raise BackendError(
            "weights in few bits cannot be trained themselves.",
            next_step="Leave out `quantize`, or leave out `full` to train an adapter.",
        )


def draw_matrices(shapes: Shapes, seed: int) -> Arrays:
    """Draw the initial matrices of every LoRA pair among `shapes`.

    DoRA's magnitudes are the lengths of the base's rows, so they are the backend's to give.
    """
    arrays: dict[str, Floats] = {}
    for path in modules(shapes):
        a, b = parameter(path, "A"), parameter(path, "B")
        (rank, inputs), (outputs, _) = shapes[a], shapes[b]
        arrays[a], arrays[b] = lora_matrices(seed, path, rank, inputs, outputs)
    return arrays


def check_fit(arrays: Arrays, shapes: Shapes, where: str) -> None:
    """Raise ModelError unless the names and shapes of `arrays` are those of the model."""
    problem = misfit(arrays, shapes)
    if problem:
        raise ModelError(
            f"the adapter does not fit the model: {problem}.", where=where, next_step=FIT
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
