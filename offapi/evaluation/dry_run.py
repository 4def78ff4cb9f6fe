"""What `offapi train --dry-run` finds out: all that a run reads is checked, nothing is written.

The model is loaded and timed, as a run does first. Left out: the teacher's answers and the rewards,
which only the run itself can know.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from offapi.backend import Backend, default_backend, load, require_installed
from offapi.config import load as configs
from offapi.evaluation.run_forecast import Outlook, forecast_run
from offapi.progress import Progress
from offapi.text.display import duration, plural
from offapi.training.checkpoints import KEEP
from offapi.training.forecast import Machine
from offapi.training.job import Loader
from offapi.training.recipe_run import check_free, find_recipe, no_score, read_inputs

GIB, MIB = 2**30, 2**20


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run that has not begun: what it will do, and what that takes."""

    recipe: str
    backend: str
    ranks: int
    outlook: Outlook
    max_tokens: int
    disk: int  # bytes of its checkpoints and its adapter
    free: int  # bytes on that disk
    folder: Path
    no_score: str  # why there will be none; "" where there is one
    command: str

    def as_dict(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        plan = {"recipe": self.recipe, "backend": self.backend, "run": str(self.folder)}
        sizes = {
            "ranks": self.ranks,
            "max_tokens": self.max_tokens,
            "disk": self.disk,
            "disk_free": self.free,
        }
        return {**plan, **asdict(self.outlook), **sizes}

    def lines(self) -> list[str]:
        """Return sentences: rows, teacher, time, memory, disk, what is missing, how to begin."""
        outlook = self.outlook
        together = f" on {plural(self.ranks, 'rank')}" if self.ranks > 1 else ""
        most = "at most " if self.recipe == "distill" else ""
        lines = [
            f"{self.recipe} on {self.backend}: {most}{plural(outlook.rows, 'row')} to learn in"
            f" {plural(outlook.steps, 'step')}, {plural(outlook.scored, 'document')} to score. The"
            f" longest row has {most}{outlook.longest:,} of max_tokens = {self.max_tokens:,}."
        ]
        if outlook.asked:
            lines.append(f"The teacher is asked for {plural(outlook.asked, 'document')} first.")
        lines.append(
            f"At most {plural(outlook.trained, 'token')} to train on and {outlook.decoded:,} to"
            f" write: about {duration(outlook.seconds)}{together}, {outlook.memory / GIB:.1f} of"
            f" {outlook.total / GIB:.0f} GiB of memory; {self.disk / MIB:,.1f} MiB of"
            f" {self.free / GIB:,.0f} GiB free on the disk of {self.folder}."
        )
        lines += self.warnings()
        return [
            *lines,
            f"All files are read and checked; nothing was written. Begin: {self.command}",
        ]

    def warnings(self) -> list[str]:
        """Return what will stop the run, or leave it without a score."""
        found = []
        if self.outlook.memory > self.outlook.total:
            found.append("This exceeds the memory: lower limits.train_tokens or max_tokens.")
        if self.disk > self.free:
            found.append("This exceeds the disk: free some space, or set `out` to another disk.")
        return [*found, self.no_score] if self.no_score else found


def plan_run(
    path: Path,
    overrides: Sequence[str],
    backend_name: str | None,
    progress: Progress,
    command: str,
    load: Loader = load,
) -> RunPlan:
    """Read and check all that the run of the recipe at `path` needs, and measure the machine.

    `load` loads the model, on all ranks where there are several. Raise what the run itself would
    raise before it trains.
    """
    recipe = find_recipe(path)
    config = configs.load(path, recipe.Config, overrides)
    check_free(config, command, resume=False)
    name = backend_name or default_backend()
    require_installed(name)
    inputs = read_inputs(recipe, config, progress)
    progress.say(f"Loading {inputs.model.name} to time it ...")
    student = load(name, config.spec(inputs.model))
    try:
        outlook, ranks = forecast_run(config, inputs, Machine.of(student)), student.ranks
        disk = _state_bytes(student, outlook.students)
    finally:
        student.close()
    folder = (config.out / config.name).absolute()
    scored = config.val is not None or config.recipe == "grpo"
    return RunPlan(
        recipe=config.recipe,
        backend=name,
        ranks=ranks,
        outlook=outlook,
        max_tokens=config.max_tokens,
        disk=disk,
        free=shutil.disk_usage(_existing(folder)).free,
        folder=folder,
        no_score="" if scored else no_score(config),
        command=command,
    )


def _state_bytes(student: Backend, students: int) -> int:
    """Return the bytes of the checkpoints kept, of one being written, and of the results.

    A checkpoint holds the adapter and the optimizer's two moments.
    """
    adapter = sum(4 * array.size for array in student.state().adapter.values())
    return students * adapter * (3 * (KEEP + 1) + 1)


def _existing(folder: Path) -> Path:
    return next(parent for parent in folder.parents if parent.exists())
