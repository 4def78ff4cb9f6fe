"""Where a check finds its values in an answer, and
a check of one field made from a test of one value.

A path names a field, fields in it with dots, and all items of a list with []:
`total`, `seller.name`, `lines[].amount`. Left out: names that hold a dot or [].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from offapi.checks.verdict import Answer, Check, Context, Verdict
from offapi.errors import ConfigError

Test = Callable[[Any], str]


def check_each(path: str, test: Test) -> Check:
    """A check: the share of the values at `path` that
    pass `test`, which says what is wrong with one or "".

    Absent and null values are passed over, and an answer without any scores 1: whether a
    field must be there is the schema's to say.
    """
    made = parse_field_path(path)
    absent, right = Verdict(1.0, f"{path} has no value"), Verdict(1.0, f"{path} is right")

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        if answer.value is None:
            return Verdict(0.0, answer.error)
        found = _follow(answer.value, made)
        if not found:
            return absent
        wrong = [said for said in map(test, found) if said]
        return Verdict(1.0 - len(wrong) / len(found), f"{path}: {wrong[0]}") if wrong else right

    return check


def values_at(value: Mapping[str, Any], path: str) -> list[Any]:
    """The values at `path` in their order, without absent and null ones."""
    return _follow(value, parse_field_path(path))


Steps = tuple[tuple[str, bool], ...]


def _follow(value: Mapping[str, Any], path: Steps) -> list[Any]:
    found: list[Any] = [value]
    for name, listed in path:
        inner = [part.get(name) for part in found if isinstance(part, Mapping)]
        found = (
            [item for part in inner if isinstance(part, list) for item in part] if listed else inner
        )
    return [part for part in found if part is not None]


@lru_cache(maxsize=256)
def parse_field_path(path: str) -> Steps:
    """The names in `path`, each with whether all items of its list are meant.

    ConfigError where it is no path.
    """
    made = tuple((step.removesuffix("[]"), step.endswith("[]")) for step in path.split("."))
    if not all(name and "[" not in name and "]" not in name for name, _ in made):
        raise ConfigError(
            f"{path!r} is no path to a field.",
            next_step="Write it as `total`, `seller.name` or `lines[].amount`.",
        )
    return made
