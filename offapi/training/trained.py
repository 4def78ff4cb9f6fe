"""What a run trains, as files: an adapter of some shape, or every weight of the model.

Left out: the optimizer's state (`train_state`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from offapi import adapter
from offapi.backend import Backend
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.models.adapter_probe import probe_files
from offapi.models.store import Model
from offapi.optimizer import Arrays
from offapi.training import whole_model
from offapi.training.run import Run

ADAPTER, MODEL = "adapter", "model"  # the folder of a run's result


@dataclass(frozen=True)
class Trained:
    """An adapter of `shape` on the model in `folder`, or without a shape all of its weights."""

    shape: LoraSpec | None
    base: adapter.Base
    folder: Path

    @classmethod
    def of(cls, shape: LoraSpec | None, model: Model, quantize: int | None = None) -> Trained:
        """Return what a run on `model`, loaded in that many bits, trains."""
        return cls(shape, adapter.Base.of(model.name, model.path, quantize), model.path)

    @property
    def weights(self) -> str:
        """The name of the file with what is trained, in a checkpoint."""
        return whole_model.WEIGHTS if self.shape is None else adapter.WEIGHTS

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files that `encode` returns."""
        return (self.weights,) if self.shape is None else (adapter.CONFIG, self.weights)

    def check(self, backend: Backend) -> None:
        """Raise ModelError for a model whose weights could not be written back."""
        if self.shape is None:
            whole_model.check_as_stored(self.folder, backend.state().adapter)

    def encode(self, arrays: Arrays) -> Mapping[str, bytes]:
        """Return the files of `arrays` in a checkpoint: name -> content."""
        if self.shape is None:
            return {whole_model.WEIGHTS: whole_model.encode(arrays)}
        return adapter.encode(arrays, self.shape, self.base)

    def read(self, folder: Path) -> Arrays:
        """Return the arrays in a folder with such files. Raise ModelError where it is damaged."""
        return whole_model.read(folder) if self.shape is None else adapter.read(folder)[1]

    def write_result(self, run: Run, arrays: Arrays, backend: Backend, spec: ModelSpec) -> Path:
        """Write `arrays`, which `backend` has, as the run's result: an adapter, or a model."""
        if self.shape is None:
            files = whole_model.model_files(self.folder, arrays)
            return run.write_folder(MODEL, {**files, **probe_files(backend, spec)})
        return run.write_folder(ADAPTER, {**self.encode(arrays), **probe_files(backend, spec)})
