"""A task as it can watch what is served: without its
gold checks, and with no gold shown to the others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from offapi.checks import matches_gold
from offapi.checks.verdict import Answer, Check, Context, Verdict
from offapi.errors import ConfigError
from offapi.task import Task, load_task


def load(path: Path) -> Task:
    """The task in `path`; ConfigError where no check would be left.

    Checks of the audit count as all others.
    """
    task = load_task(path)
    checks = {name: pair for name, pair in task.checks.items() if pair[0] is not matches_gold}
    if not checks:
        step = "Add a check that needs no gold to the task: what is served has none."
        raise ConfigError(
            f"task {task.name!r} has no check but those against gold.",
            where=str(path),
            next_step=step,
        )
    shown = {name: (_blind(check), weight) for name, (check, weight) in checks.items()}
    return replace(task, checks=shown, audit=(), reward=None)


@contextmanager
def file(path: Path) -> Iterator[Path]:
    """A task file that defines the task of `path` without gold, for processes that load one."""
    with TemporaryDirectory(prefix="offapi-") as folder:
        made = Path(folder) / path.name
        made.write_text(
            f"from pathlib import Path\nfrom offapi.drift import without_gold\n"
            f"task = without_gold.load(Path({str(path.absolute())!r}))\n",
            "utf-8",
        )
        yield made


def _blind(check: Check) -> Check:
    @functools.wraps(check)
    def blind(document: str, answer: Answer, context: Context) -> Verdict:
        return check(
            document, answer, context if context.gold is None else replace(context, gold=None)
        )

    return blind
