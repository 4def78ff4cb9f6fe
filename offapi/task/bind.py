"""What a field of an answer may be bound to: the document's own words, or the names of a list.

Declared in a task's `bind`, or for words as `"x-quote": true` in its schema. A declaration changes
nothing by itself: commands apply it under `constrain` (`offapi.constrain`). Left out:
numbers and dates, which are those of the task's `match`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from offapi.checks.schema_types import alternatives, properties_of
from offapi.errors import ConfigError

IN_SCHEMA = "x-quote"  # the schema's own word for a quoted string


@dataclass(frozen=True)
class Quote:
    """The field is a run of the document's whole words."""


@dataclass(frozen=True)
class OneOf:
    """The field is a name of the list in `path`, or null where the schema allows it.

    `column` is the column of a .csv file or the field of a .jsonl one; a .txt file has a name on
    each line. A relative path is relative to the task file.
    """

    path: Path
    column: str | None = None


Bind = Quote | OneOf


def quote(*fields: str) -> dict[str, Bind]:
    """Return what `Task(bind=...)` takes for fields that are quoted from the document.

    A dot leads into an object, `[]` into the items of a list: `items[].name`.
    """
    return {field: Quote() for field in fields}


def one_of(path: str | Path, column: str | None = None) -> OneOf:
    """Return what `Task(bind={field: ...})` takes for a field that is a name of a list."""
    if Path(path).suffix.lower() not in (".txt", ".csv", ".jsonl"):
        raise ConfigError(
            f"one_of reads .txt, .csv and .jsonl files, got {str(path)!r}.",
            next_step="Write one name on each line of a .txt file.",
        )
    if (Path(path).suffix.lower() == ".txt") != (column is None):
        what = "has no columns" if column else "needs the name of a column"
        step = 'Write one_of("names.txt") or one_of("names.csv", column="name").'
        raise ConfigError(f"one_of: {path} {what}.", next_step=step)
    return OneOf(Path(path), column)


def located(bind: Mapping[str, Bind], folder: Path) -> dict[str, Bind]:
    """Return `bind` with relative paths made absolute, from `folder`."""
    return {
        field: replace(bound, path=(folder / bound.path).absolute())
        if isinstance(bound, OneOf)
        else bound
        for field, bound in bind.items()
    }


def part_at(schema: Mapping[str, Any], path: str) -> object | None:
    """Return the schema of the field at `path`, of which `[]` leads into items; None without one.

    Unlike `field_schema`, objects that name no properties have no fields.
    """
    part: object = schema
    for step in path.split("."):
        name = step.removesuffix("[]")
        part = properties_of(part, schema).get(name)
        if step.endswith("[]"):
            items = [one.get("items") for one in alternatives(part, schema)]
            part = next(filter(None, items), None)
        if part is None:
            return None
    return part


def quoted_in(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths of the properties that the schema itself calls quoted."""
    yield from _quoted(schema, schema, "", 0)


_DEEPEST = 8  # a schema may refer to itself


def _quoted(part: object, root: Mapping[str, Any], path: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    for one in alternatives(part, root):
        if path and one.get(IN_SCHEMA) is True:
            yield path
        if "items" in one:
            yield from _quoted(one["items"], root, path + "[]", depth + 1)
        for name, inner in (one.get("properties") or {}).items():
            yield from _quoted(inner, root, f"{path}.{name}" if path else name, depth + 1)
