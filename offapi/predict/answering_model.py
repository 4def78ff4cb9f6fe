"""What answers: a run with its adapter, base and task, or a model with an adapter or without one.

Left out: loading weights (`offapi.predict.predictor`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from offapi import adapter as adapters
from offapi.chat.template_options import Options
from offapi.errors import ConfigError, ModelError, RunError
from offapi.evaluation.test_set import run_of
from offapi.files.hashing import sha256_file, sha256_named
from offapi.files.lock import CannotLock
from offapi.files.weights_hash import sha256_weights
from offapi.models import store
from offapi.training.base_bits import Bits, TrainedBits
from offapi.training.prompt_settings import options_of
from offapi.training.run import MANIFEST, Run
from offapi.training.trained import MODEL

FINAL = ("adapter", "best")  # a run's adapter folders, the first that is there


@dataclass(frozen=True)
class AnsweringModel:
    """A base model, an adapter on it, and the run that trained the adapter, if any did.

    `asked_bits` are those that the base is loaded in.
    """

    model: store.Model
    adapter: Path | None = None
    run: Run | None = None
    asked_bits: Bits = "trained"

    @classmethod
    def of(cls, name: str | Path, adapter: Path | None = None, bits: Bits = "trained") -> Self:
        """Return what `name` means: a run's folder, an adapter in it, or a model.

        Raise RunError for a run that is being written or has no adapter yet, ConfigError for an
        adapter in place of a run's own, and ModelError.
        """
        return replace(cls._of(name, adapter), asked_bits=bits)

    @classmethod
    def _of(cls, name: str | Path, adapter: Path | None) -> Self:
        path = Path(name).expanduser()
        if (path / adapters.CONFIG).is_file():
            run = run_of(path)
            return cls._of_run(run, path) if run else cls._of_adapter(path)
        if not (path / MANIFEST).is_file():
            return cls(_model(name), adapter, _free(run_of(adapter)) if adapter else None)
        if adapter is not None:
            step = "Leave --adapter out, or name the base model in place of the run."
            raise ConfigError(
                "a run answers with its own adapter.", where=str(path), next_step=step
            )
        run = Run.open(path)
        if run.manifest.get("config", {}).get("full"):
            return cls._of_whole(run)
        final = next((path / each for each in FINAL if (path / each).is_dir()), None)
        if final is None:
            step = "Finish it with `offapi train ... --resume`, or name one of its checkpoints."
            raise RunError("the run has no adapter yet.", where=str(path), next_step=step)
        return cls._of_run(run, final)

    @classmethod
    def _of_whole(cls, run: Run) -> Self:
        """Return the model of a run that trained every weight."""
        if not (run.path / MODEL).is_dir():
            step = "Finish it with `offapi train ... --resume`."
            raise RunError("the run has no model yet.", where=str(run.path), next_step=step)
        return cls(store.get(run.path / MODEL), None, _free(run))

    @classmethod
    def _of_run(cls, run: Run, adapter: Path) -> Self:
        base = run.manifest.get("config", {}).get("model")
        if not isinstance(base, str):
            step = "Name the base model, and the adapter with --adapter."
            raise RunError("the run names no base model.", where=str(run.path), next_step=step)
        _free(run)
        try:
            return cls(store.get(base), adapter, run)
        except store.UnknownModel as error:
            error.what = f"the base model {base!r} of the run is not here."
            error.next_step = (
                "Add it, run the command where the run was trained, or name the model and"
                f" `--adapter {adapter}`."
            )
            raise

    @classmethod
    def _of_adapter(cls, path: Path) -> Self:
        step = f"Name its base model, and add `--adapter {path}`."
        raise ModelError("this is an adapter without a run.", where=str(path), next_step=step)

    @property
    def task_file(self) -> Path | None:
        """The task that the run was trained on; None without a run that names one."""
        named = self.run.manifest.get("config", {}).get("task") if self.run else None
        return Path(named) if isinstance(named, str) else None

    def doubts(self, task_file: Path | None) -> list[str]:
        """Return what a person should know: another task than the run's, a base that is a guess."""
        said = []
        trained = self.run.manifest.get("sha256", {}).get("task") if self.run else None
        if trained and task_file and sha256_named(task_file) != trained:
            changed = task_file == self.task_file
            which = "has changed since the run" if changed else "is not the one that the run had"
            said.append(f"The task file {task_file} {which}: confidence and accuracy may not hold.")
        name, bits = self.model.name, self.quantize
        if self.adapter and (doubt := adapters.doubt_base(self.adapter, name, bits)):
            said.append(doubt)
        return said

    @property
    def recorded(self) -> Path:
        """The folder with the training's record of what is computed, where there is one."""
        return self.adapter or self.model.path

    @cached_property
    def trained_bits(self) -> TrainedBits:
        """The bits of the base in the adapter's training."""
        return TrainedBits.of(self.adapter, self.run)

    @property
    def quantize(self) -> int | None:
        """The bits to load the base in; None: as it is stored."""
        return self.trained_bits.choose(self.asked_bits)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The base and the adapter with the hashes of their weights, and the run's folder."""
        base = {"name": self.model.name, "sha256": sha256_weights(self.model.path)}
        weights = None
        if self.adapter is not None:
            sha256 = sha256_file(adapters.weights_file(self.adapter))
            weights = {"path": str(self.adapter), "sha256": sha256}
        return {"base": base, "adapter": weights, "run": str(self.run.path) if self.run else None}

    @property
    def options(self) -> Options:
        """What the run gave the chat template; nothing without a run."""
        return options_of(self.run)

    @property
    def context(self) -> int | None:
        """The model's context length in tokens; None where its config does not say."""
        return self.model.context


def _model(name: str | Path) -> store.Model:
    """Return a model; raise ModelError, for an unknown name as for what could be a run too."""
    try:
        return store.get(name)
    except store.UnknownModel as error:
        error.what = f"there is no run and no model {str(name)!r}."
        raise


def _free(run: Run | None) -> Run | None:
    """Return `run`. Raise RunError while another process writes it: its adapter may change."""
    if run is not None:
        with suppress(OSError, CannotLock), run.alone():
            pass
    return run
