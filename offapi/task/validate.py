"""Check that the parts of a task fit each other, before the task is used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from offapi.checks.kinds import Kind, KindName, Match, check_kind_name, kind_of
from offapi.checks.schema import schema_validator
from offapi.checks.schema_types import choices_of, field_schema, properties_of, types_of
from offapi.checks.verdict import check_needs
from offapi.errors import ConfigError, nearest
from offapi.task.bind import OneOf, Quote, part_at, quoted_in
from offapi.task.example import Example
from offapi.task.validate_tools import validate_tools
from offapi.text.normalise import is_number

if TYPE_CHECKING:
    from offapi.task.task import Task

Schema = Mapping[str, Any]


def validate_task(task: Task) -> None:
    """Raise ConfigError at the first part of `task` that is wrong."""
    _validate_words(task)
    _validate_schema(task)
    if not task.checks:
        raise _wrong(
            task,
            "checks must not be empty",
            'Add one, such as `"json": (offapi.checks.is_json, 1.0)`.',
        )
    for name, weighted in task.checks.items():
        if not (isinstance(weighted, tuple) and len(weighted) == 2 and callable(weighted[0])):
            what = f"checks[{name!r}] must be (check, weight), got {weighted!r}"
            raise _wrong(task, what, 'Write `"json": (offapi.checks.is_json, 1.0)`.')
        weight = weighted[1]
        if not is_number(weight) or not math.isfinite(weight) or weight <= 0:
            what = f"the weight of checks[{name!r}] must be a number above 0, got {weight!r}"
            raise _wrong(task, what, "Leave the check out instead of giving it no weight.")
        if task.schema is None and check_needs(weighted[0], "object"):
            what = f"checks[{name!r}] reads a JSON object, but the task answers with text"
            raise _wrong(task, what, "Use checks of text, such as length, or give it a schema.")
    _validate_audit(task)
    _validate_bind(task)
    validate_tools(task)
    for i, example in enumerate(task.examples):
        if not example.document.strip():
            raise _wrong(task, f"examples[{i}] has an empty document", "Give it a document.")
        _validate_answer(task, i, example.answer)


def _validate_answer(task: Task, i: int, answer: object) -> None:
    if task.schema is None:
        if not isinstance(answer, str) or not answer.strip():
            what = f"the answer of examples[{i}] must be a text, got {answer!r}"
            raise _wrong(task, what, "Write the text, or give the task a schema.")
        return
    if not isinstance(answer, Mapping):
        what = f"the answer of examples[{i}] must be an object, got {answer!r}"
        raise _wrong(task, what, "Write it as {...}; schema=None makes a task that answers text.")
    errors = [error.message for error in schema_validator(task.schema).iter_errors(dict(answer))]
    if errors:
        raise _wrong(
            task,
            f"examples[{i}] does not fit the schema: {errors[0]}",
            "Fix the example or the schema.",
        )


def _validate_audit(task: Task) -> None:
    if not isinstance(task.audit, tuple):
        what = f"audit must be a tuple of names of checks, got {task.audit!r}"
        raise _wrong(task, what, 'Write `audit=("json",)`.')
    for name in task.audit:
        if not isinstance(name, str) or name not in task.checks:
            raise _wrong(
                task,
                f"audit names {name!r}, which is not one of the checks",
                nearest(str(name), task.checks),
            )
    if set(task.audit) == set(task.checks):
        raise _wrong(
            task,
            "every check is in audit, and none is left to grade by",
            "Take at least one check out of `audit`.",
        )
    if task.reward is not None and not callable(task.reward):
        what = f"reward must be a function, got {task.reward!r}"
        raise _wrong(task, what, "Write a function of (documents, answers).")


def _validate_bind(task: Task) -> None:
    if not isinstance(task.bind, Mapping):
        step = 'Write `bind=offapi.quote("vendor")`.'
        raise _wrong(task, f"bind must be a mapping of fields, got {task.bind!r}", step)
    if task.schema is None:
        if task.bind:
            what = "bind names fields, but the task answers with text (schema=None)"
            raise _wrong(task, what, "Leave `bind` out, or give the task a schema.")
        return
    said = set(quoted_in(task.schema))
    for path, bound in task.bind.items():
        if not isinstance(bound, Quote | OneOf):
            step = "Write offapi.quote(...) or offapi.one_of(...)."
            raise _wrong(task, f"bind[{path!r}] must be a quote or a list, got {bound!r}", step)
        if path in said:
            what = f"{path!r} is in bind, and the schema says x-quote of it"
            raise _wrong(task, what, "Say it in one place.")
    for path in {**task.bind, **dict.fromkeys(said)}:
        _validate_bound(task, task.schema, path)


def _validate_bound(task: Task, schema: Schema, path: str) -> None:
    """Raise ConfigError unless the schema has the field at `path`, and it is a free string."""
    part = part_at(schema, path)
    if part is None:
        step = nearest(path, properties_of(schema, schema))
        step += " A path into the items of a list is written as `items[].name`."
        raise _wrong(task, f"bind names {path!r}, which is not in the schema", step)
    types = types_of(part, schema)
    if types != {"string"} or choices_of(part, schema):
        said = "an enum" if choices_of(part, schema) else " or ".join(sorted(types)) or "no type"
        what = f"bind names {path!r}, for which the schema says {said}"
        raise _wrong(task, what, "Only free strings are bound to words or to a list.")
    match = task.match.get(path)
    if match is not None and kind_of(match).name == "date":
        what = f"{path!r} is of the kind 'date' and also in bind"
        raise _wrong(task, what, "Take it out of `bind`: dates are read from the document anyway.")


def _validate_words(task: Task) -> None:
    for name in ("name", "instructions"):
        text = getattr(task, name)
        if not isinstance(text, str) or not text.strip():
            what = f"{name} must be a text that is not empty, got {text!r}"
            raise _wrong(task, what, f'Write `{name}="..."`.')
    if not isinstance(task.max_answer_tokens, int) or task.max_answer_tokens < 1:
        raise _wrong(
            task,
            f"max_answer_tokens must be a whole number above 0, got {task.max_answer_tokens!r}",
            "Give the length of the longest answer, in tokens.",
        )
    if not isinstance(task.strict, bool):
        what = f"strict must be True or False, got {task.strict!r}"
        raise _wrong(task, what, "Write `strict=True` to refuse answers in a code fence.")
    seconds = task.check_seconds
    if seconds is not None and not (is_number(seconds) and 0 <= seconds < math.inf):
        raise _wrong(
            task,
            f"check_seconds must be a number of seconds or None, got {seconds!r}",
            "Write None for no limit.",
        )
    if not isinstance(task.examples, tuple) or not all(
        isinstance(example, Example) for example in task.examples
    ):
        raise _wrong(
            task,
            "examples must be a tuple of offapi.Example",
            "Write `examples=(offapi.Example(...),)`.",
        )


def _validate_schema(task: Task) -> None:
    if task.schema is None:
        if task.match:
            what = "match compares fields, but the task answers with text (schema=None)"
            raise _wrong(task, what, "Leave `match` out, or give the task a schema.")
        return
    if not isinstance(task.schema, Mapping) or not isinstance(
        task.schema.get("properties"), Mapping
    ):
        hint = (
            'Write `schema={"type": "object", "properties": {...}, "required": [...]}`, or'
            " schema=None for answers in free text."
        )
        raise _wrong(task, "schema has no properties", hint)
    try:
        schema_validator(task.schema)
    except (ValueError, TypeError) as error:
        what = f"schema is not a valid JSON schema: {error}"
        raise _wrong(task, what, "See json-schema.org, draft 2020-12.") from None
    if not task.match:
        raise _wrong(
            task,
            "match must not be empty",
            'Say how fields are compared, as in `match={"total": "number"}`.',
        )
    for path, match in task.match.items():
        _validate_match(task, task.schema, path, match)


def _validate_match(task: Task, schema: Schema, path: str, match: Match) -> None:
    """Raise ConfigError unless the schema has the field, and values that its kind compares."""
    if "[]" in path:
        name = path.split("[]")[0]
        what = f"match names {path!r}: the items of a list are compared with the whole list"
        raise _wrong(task, what, f'Write `match={{"{name}": "list"}}`.')
    part = field_schema(schema, path)
    if part is None:
        known = properties_of(schema, schema)
        step = f"{nearest(path, known)} A path into an object is written as `total.price`."
        raise _wrong(task, f"match names {path!r}, which is not in the schema", step)
    if not isinstance(match, Kind):
        check_kind_name(match, f"task {task.name!r}: match[{path!r}]")
    outer = next((other for other in task.match if path.startswith(other + ".")), None)
    if outer is not None:
        what = f"match names both {outer!r} and {path!r}, which is inside it"
        raise _wrong(task, what, "Keep the object, or the fields inside it.")
    _validate_type(task, schema, path, kind_of(match).name, part)


def _validate_type(task: Task, schema: Schema, path: str, name: KindName, part: object) -> None:
    types = types_of(part, schema)
    choices = choices_of(part, schema)
    if name == "choice" and not choices:
        what = f"match[{path!r}] is 'choice', and the schema gives the field no `enum`"
        raise _wrong(task, what, "List the choices as `enum` in the schema, or write 'exact'.")
    if not types or name in ("exact", "choice") or types & _COMPARES[name]:
        return
    fitting = sorted({_FITS[found] for found in types if found in _FITS})
    what = f"match[{path!r}] is {name!r}, and the schema says {' or '.join(sorted(types))}"
    raise _wrong(task, what, f"Write {' or '.join(map(repr, fitting))}, or change the schema.")


# By kind, the JSON types it compares; by type, the kind that fits.
_COMPARES: Mapping[KindName, frozenset[str]] = {
    "text": frozenset({"string", "boolean"}),
    "number": frozenset({"number", "integer"}),
    "date": frozenset({"string"}),
    "boolean": frozenset({"boolean"}),
    "list": frozenset({"array"}),
    "object": frozenset({"object"}),
    "fuzzy": frozenset({"string"}),
}
_FITS: Mapping[str, KindName] = {
    "string": "text", "number": "number", "integer": "number", "boolean": "boolean",
    "array": "list", "object": "object",
}  # fmt: skip


def _wrong(task: Task, what: str, next_step: str) -> ConfigError:
    label = task.name if isinstance(task.name, str) else "?"
    return ConfigError(f"task {label!r}: {what}.", next_step=next_step)
