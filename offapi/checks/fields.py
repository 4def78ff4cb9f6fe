"""Field paths: where a check finds its values in an answer, and checks of each value there.

A path names a field; a dot leads to a field inside it, and [] means every item of a list: `total`,
`seller.name`, `lines[].amount`. Left out: names that contain a dot or [].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from offapi.checks.verdict import Answer, Check, Context, Verdict, needs
from offapi.errors import ConfigError

Test = Callable[[Any], str]


def check_each(path: str, test: Test) -> Check:
    """Return a check: the share of the values at `path` that pass `test`.

    `test` returns what is wrong with a value, or "". Absent and null values are skipped, and an
    answer without any value scores 1: the schema says whether a field is required.
    """
    steps = parse_field_path(path)
    absent, right = Verdict(1.0, f"{path} has no value"), Verdict(1.0, f"{path} is right")

    @needs("object")
    def check(document: str, answer: Answer, context: Context) -> Verdict:
        if answer.value is None:
            return Verdict(0.0, answer.error)
        values = _follow(answer.value, steps)
        if not values:
            return absent
        wrong = [mistake for mistake in map(test, values) if mistake]
        return Verdict(1.0 - len(wrong) / len(values), f"{path}: {wrong[0]}") if wrong else right

    return check


def values_at(value: Mapping[str, Any], path: str) -> list[Any]:
    """Return the values at `path` in order, without absent and null ones."""
    return _follow(value, parse_field_path(path))


def value_at(value: Mapping[str, Any], path: str) -> Any:
    """Return the one value at a dotted path; None where it is absent.

    A field whose name is the whole path comes first.
    """
    if "." not in path or path in value:
        return value.get(path)
    inner: Any = value
    for name in path.split("."):
        inner = inner.get(name) if isinstance(inner, Mapping) else None
    return inner


def holds_path(value: Mapping[str, Any], path: str) -> bool:
    """Return whether `value` has the field at a dotted path, null or not.

    A null on the way counts: what is inside it is null too.
    """
    if "." not in path or path in value:
        return path in value
    inner: Any = value
    for name in path.split("."):
        if inner is None:
            return True
        if not isinstance(inner, Mapping) or name not in inner:
            return False
        inner = inner[name]
    return True


Steps = tuple[tuple[str, bool], ...]


def _follow(value: Mapping[str, Any], path: Steps) -> list[Any]:
    values: list[Any] = [value]
    for name, listed in path:
        inner = [part.get(name) for part in values if isinstance(part, Mapping)]
        if listed:
            values = [item for part in inner if isinstance(part, list) for item in part]
        else:
            values = inner
    return [part for part in values if part is not None]


@lru_cache(maxsize=256)
def parse_field_path(path: str) -> Steps:
    """Return the names in `path`, each with whether it means every item of a list.

    Raise ConfigError when it is not a path.
    """
    steps = tuple((step.removesuffix("[]"), step.endswith("[]")) for step in path.split("."))
    if not all(name and "[" not in name and "]" not in name for name, _ in steps):
        raise ConfigError(
            f"{path!r} is not a path to a field.",
            next_step="Write it as `total`, `seller.name` or `lines[].amount`.",
        )
    return steps
