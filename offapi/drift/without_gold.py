"""A task for served traces: without its gold checks, and with gold hidden from the others."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from offapi.checks.verdict import Answer, Check, Context, Verdict, check_needs
from offapi.errors import ConfigError
from offapi.task import Task, load_task


def load(path: Path) -> Task:
    """Return the task in `path`. Raise ConfigError if no check would be left.

    The audit's checks count like all others.
    """
    task = load_task(path)
    checks = {name: pair for name, pair in task.checks.items() if not check_needs(pair[0], "gold")}
    if not checks:
        step = "Add a check that needs no gold: served traces have none."
        raise ConfigError(
            f"task {task.name!r} only has checks against gold.",
            where=str(path),
            next_step=step,
        )
    shown = {name: (_blind(check), weight) for name, (check, weight) in checks.items()}
    return replace(task, checks=shown, audit=(), reward=None)


@contextmanager
def file(path: Path) -> Iterator[Path]:
    """Write a task file that defines the task of `path` without gold, for other processes."""
    with TemporaryDirectory(prefix="offapi-") as folder:
        task_file = Path(folder) / path.name
        task_file.write_text(
            f"from pathlib import Path\nfrom offapi.drift import without_gold\n"
            f"task = without_gold.load(Path({str(path.absolute())!r}))\n",
            "utf-8",
        )
        yield task_file


def _blind(check: Check) -> Check:
    @functools.wraps(check)
    def blind(document: str, answer: Answer, context: Context) -> Verdict:
        return check(document, answer, replace(context, gold=None))

    return blind
