"""The bundle that a recipe runs with: its config, its inputs, and where it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from offapi.progress import Progress
from offapi.training.run import Run

ConfigT = TypeVar("ConfigT", covariant=True)
InputsT = TypeVar("InputsT", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Job(Generic[ConfigT, InputsT]):
    """One run of a recipe.

    `inputs` is what its `prepare` read, `folder` a run that is locked for writing. With `resume`
    it continues from the last checkpoint in `folder`.
    """

    config: ConfigT
    inputs: InputsT
    backend_name: str
    folder: Run
    progress: Progress
    resume: bool = False
