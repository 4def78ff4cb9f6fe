"""Paths in a JSON value: the part of JSONPath that names one place, `$.a.b[0]['c d']`.

Libraries of JSONPath return any number of matches and do not look into JSON that was logged as
text; here a path names one place, or is refused before the import begins. Left out: everything that
names several places (wildcards, slices, filters), negative indexes.
"""

from __future__ import annotations

import re

from offapi.data.importers.shared.loose_json import Json, opened
from offapi.errors import ConfigError

Path = tuple[str | int, ...]
LONE = r"\ud800-\udfff"  # how Python keeps bytes of a command line that are not UTF-8
STEP = re.compile(
    rf"""\.([^.\[\]'"\s{LONE}]+) | \[(\d+)\] | \['([^'{LONE}]*)'\] | \["([^"{LONE}]*)"\]""",
    re.VERBOSE,
)


def parse_path(written: str, where: str) -> Path:
    """Return the steps of a path; ConfigError, naming the option `where`, for anything else."""
    steps: list[str | int] = []
    at = 1 if written.startswith("$") else len(written) + 1
    while at < len(written) and (step := STEP.match(written, at)):
        name = next(group for group in step.groups() if group is not None)
        steps.append(int(name) if step[2] else name)
        at = step.end()
    if at != len(written):
        step_text = "Write a path such as $.request.messages or $.answers[0]['text']."
        raise ConfigError(f"{written!r} is not a path.", where=where, next_step=step_text)
    return tuple(steps)


def value_at(value: Json, path: Path) -> Json:
    """Return the value at `path` in `value`; None where there is nothing.

    Texts that contain JSON are opened on the way.
    """
    for step in path:
        value = opened(value)
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value
