"""What a run gives the chat template: the recipe's `template`, and the day that the run began.

So a run that is resumed, scored or served on another day words its prompts as it did in training.
Left out: which of it a template reads (`offapi.chat.template_options`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any, TypeVar

from offapi.chat.template_options import Options, pin_date
from offapi.training.run import MANIFEST, Run

DAY = "date"  # in a run's manifest
ConfigT = TypeVar("ConfigT")


def day_of(manifest: Mapping[str, Any]) -> str:
    """Return the day that a run began, by its manifest; today for one that begins.

    Runs of version 0.2 and before have no day, only the moment at which they were created, in UTC.
    """
    return str(manifest.get(DAY) or manifest.get("created", "")[:10] or date.today())


def on_day(config: ConfigT, day: str) -> ConfigT:
    """Return a recipe's `config` whose template is given `day` as today."""
    pinned = pin_date(getattr(config, "template"), day)  # noqa: B009  # no protocol for one key
    return replace(config, template=pinned)  # type: ignore[type-var]


def options_of(run: Run | None) -> Options:
    """Return what `run` gave the chat template; nothing without one."""
    if run is None:
        return {}
    manifest = run.manifest
    if manifest.get("control") and (run.path.parent / MANIFEST).is_file():
        manifest = Run.open(run.path.parent).manifest  # the second student of a run
    given = manifest.get("config", {}).get("template") or {}
    return pin_date(given, day_of(manifest))
