"""The checkpoints of a run: committed whole, verified when read, pruned with care.

One folder each, `step-000010`, written by `offapi.files.atomic`. Left out: what is inside them,
which the recipe decides.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from offapi.errors import RunError
from offapi.files import atomic

KEEP = 2  # intact checkpoints to keep
PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint; `skipped` names newer ones that were damaged."""

    step: int
    path: Path
    meta: Mapping[str, Any]
    metrics_bytes: int  # length of metrics.jsonl when it was taken
    skipped: tuple[str, ...] = ()

    def resumed(self, steps: int) -> str:
        """Return one line: at which of `steps` a run resumes, and which checkpoints are damaged."""
        names = ", ".join(self.skipped)
        damaged = (
            f"checkpoints {names} are damaged"
            if len(self.skipped) > 1
            else f"checkpoint {names} is damaged"
        )
        return f"Resumed at step {self.step} of {steps}{f': {damaged}' if names else ''}."


def commit(
    folder: Path, step: int, files: Mapping[str, bytes], meta: Mapping[str, Any], metrics_bytes: int
) -> Checkpoint:
    """Write checkpoint `step` into `folder` and prune; writing the same again changes nothing.

    Raises NotCommitted (earlier checkpoints stay), DurabilityUncertain, or RunError when that step
    holds other files.
    """
    path = folder / f"{PREFIX}{step:06d}"
    if path.exists() and not _holds(path, files):
        atomic.remove_folder(path)
    if not path.exists():
        atomic.write_folder(
            path, files, {"step": step, "metrics_bytes": metrics_bytes, "meta": meta}
        )
    prune(folder)
    return Checkpoint(step, path, meta, metrics_bytes)


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest intact checkpoint, or None when none was taken.

    Raises RunError when none is intact.
    """
    checkpoint = next(_intact(folder), None)
    if checkpoint is None and _paths(folder):
        raise RunError(
            "no checkpoint is intact.",
            where=str(folder),
            next_step="Check the disk, then start a new run.",
        )
    return checkpoint


def prune(folder: Path) -> None:
    """Remove checkpoints older than the last KEEP intact ones, and leftovers of killed writers."""
    kept = [checkpoint.path for checkpoint in islice(_intact(folder), KEEP)]
    if len(kept) == KEEP:
        paths = _paths(folder)
        for path in paths[paths.index(kept[-1]) + 1 :]:
            atomic.remove_folder(path)
    sweep(folder)


def sweep(folder: Path) -> None:
    """Remove temporary files of killed writers; the caller must hold the run's lock."""
    for stale in folder.glob(f"{atomic.TEMPORARY}*"):
        if stale.is_dir():
            shutil.rmtree(stale)
        else:
            stale.unlink()


def _paths(folder: Path) -> list[Path]:
    """Return the checkpoint folders, newest first, intact or not."""
    paths = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(paths, key=lambda path: int(path.name.removeprefix(PREFIX)), reverse=True)


def _intact(folder: Path) -> Iterator[Checkpoint]:
    skipped: list[str] = []
    for path in _paths(folder):
        try:
            facts = atomic.verify(path)
        except atomic.Damaged:
            skipped.append(path.name)
            continue
        yield Checkpoint(facts["step"], path, facts["meta"], facts["metrics_bytes"], tuple(skipped))


def _holds(path: Path, files: Mapping[str, bytes]) -> bool:
    """Return whether the checkpoint in `path` holds `files`.

    False when it is damaged. Raises RunError when it holds other files.
    """
    try:
        atomic.verify(path)
    except atomic.Damaged:
        return False
    if all(
        (path / name).is_file() and (path / name).read_bytes() == data
        for name, data in files.items()
    ):
        return True
    raise RunError(
        "this step already has another checkpoint.", where=str(path), next_step="Start a new run."
    )
