"""The bundle that a recipe runs with: its config, its inputs, and where it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from offapi.backend import Backend, load
from offapi.model_spec import ModelSpec
from offapi.progress import Progress
from offapi.training.run import Run

Loader = Callable[[str, ModelSpec], Backend]
ConfigT = TypeVar("ConfigT", covariant=True)
InputsT = TypeVar("InputsT", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Job(Generic[ConfigT, InputsT]):
    """One run of a recipe.

    `inputs` is what its `prepare` read, `folder` a run that is locked for writing. With `resume`
    it continues from the last checkpoint in `folder`. `load` loads the model that is trained, on
    all ranks where there are several.
    """

    config: ConfigT
    inputs: InputsT
    backend_name: str
    folder: Run
    progress: Progress
    resume: bool = False
    load: Loader = field(default_factory=lambda: load)
