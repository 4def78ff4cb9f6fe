"""The body of POST /v1/fine_tuning/jobs, read and checked.

What cannot be done as asked is refused. Left out: what the server has (`endpoints`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from offapi.serve.errors import ApiError, wrong
from offapi.serve.fine_tuning.job_recipe import recipe_values

RECIPES = ("sft", "filtered_sft")
RECIPE = "recipe"  # the key of `metadata` that names one
REFUSED = {
    "dpo": "No recipe here learns from pairs of answers (DPO); send one answer each.",
    "reinforcement": "Reinforcement is `offapi train` with the recipe grpo, not a job of this API.",
}
_SUFFIX = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FIELD = re.compile(r"`\$\.([a-z_.]+)")

Auto = Literal["auto"]


class Hyperparameters(msgspec.Struct, forbid_unknown_fields=True):
    """How to train; "auto" is what the recipe says."""

    n_epochs: int | Auto | None = None
    batch_size: int | Auto | None = None
    learning_rate_multiplier: float | Auto | None = None


class SupervisedMethod(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters of the one method that is served."""

    hyperparameters: Hyperparameters | None = None


class Method(msgspec.Struct):
    """How to learn."""

    type: str
    supervised: SupervisedMethod | None = None


class JobBody(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters of a job, as the body has them."""

    model: str
    training_file: str
    validation_file: str | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    suffix: str | None = None
    seed: int | None = None
    metadata: dict[str, str] | None = None
    integrations: list[Any] | None = None


def read_job_request(body: bytes) -> tuple[JobBody, Mapping[str, Any]]:
    """Return the body and what it says of a `FineTuningJob`. Raise ApiError (400) otherwise."""
    try:
        given = msgspec.json.decode(body, type=JobBody)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ApiError(400, "The body is not valid JSON in UTF-8.") from None
    if given.integrations:
        message = "Nothing is sent to other services from here."
        raise wrong("integrations", message, "unsupported_parameter")
    if given.suffix is not None and not _SUFFIX.fullmatch(given.suffix):
        message = "'suffix' must have 1 to 64 letters, digits, dots, dashes or underscores."
        raise wrong("suffix", message, "invalid_value")
    _check_bounds("seed", given.seed, 0, 2**31 - 1)
    metadata = _metadata(given.metadata or {})
    recipe = metadata.get(RECIPE, "sft")
    if recipe not in RECIPES:
        message = f"The recipe in 'metadata' must be one of: {', '.join(RECIPES)}."
        raise wrong("metadata", message, "invalid_value")
    asked = {"recipe": recipe, "suffix": given.suffix, "metadata": metadata}
    return given, {**asked, "seed": given.seed or 0, **_training(_chosen(given), recipe)}


def _chosen(given: JobBody) -> Hyperparameters:
    """Return the hyperparameters of the method, or those in the older place."""
    method = given.method
    if method is None:
        return given.hyperparameters or Hyperparameters()
    if method.type != "supervised":
        message = REFUSED.get(method.type, "The method must be 'supervised'.")
        raise wrong("method.type", message, "unsupported_parameter")
    own = method.supervised and method.supervised.hyperparameters
    return own or given.hyperparameters or Hyperparameters()


def _training(chosen: Hyperparameters, recipe: str) -> Mapping[str, Any]:
    """Return the numbers of a training; those not given are the recipe's."""
    own = recipe_values(recipe)
    epochs = _number(chosen.n_epochs, int(own["epochs"]))
    batch_size = _number(chosen.batch_size, own["batch_size"])
    multiplier = _number(chosen.learning_rate_multiplier, 1.0)
    _check_bounds("hyperparameters.n_epochs", epochs, 1, 100)
    _check_bounds("hyperparameters.batch_size", batch_size, 1, 1024)
    _check_bounds("hyperparameters.learning_rate_multiplier", multiplier, 0.001, 1000)
    return {"epochs": epochs, "batch_size": batch_size, "lr_multiplier": multiplier}


def _number(given: Any, own: Any) -> Any:
    return own if given is None or given == "auto" else given


def _metadata(given: Mapping[str, str]) -> Mapping[str, str]:
    if len(given) > 16 or any(len(key) > 64 or len(value) > 512 for key, value in given.items()):
        message = "'metadata' has at most 16 texts of 512 characters, under names of 64."
        raise wrong("metadata", message, "invalid_value")
    return given


def _check_bounds(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise wrong(name, f"{name!r} must be from {low:g} to {high:.12g}.", "invalid_value")


def _misfit(text: str) -> ApiError:
    """Return the error for a member that is missing, unknown or of a wrong type."""
    if "missing required field" in text:
        name = next((each for each in ("model", "training_file") if f"`{each}`" in text), "method")
        return wrong(name, f"The parameter {name!r} is missing.", "missing_required_parameter")
    if "unknown field" in text:
        message = "The request has a parameter that this server does not know."
        return ApiError(400, message, code="unknown_parameter")
    place = _FIELD.search(text)
    name = place[1] if place else "body"
    return wrong(name, f"The parameter {name!r} has a wrong type.", "invalid_type")
