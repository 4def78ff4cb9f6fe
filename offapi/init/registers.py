"""Lists of names that the answers suggest: text fields whose values come again and again.

A list is the values that the rows to learn from have; how much of the held-out rows it covers says
what it is worth. Left out: fields that the schema already gives choices for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from offapi.checks.schema_types import properties_of, types_of
from offapi.data.documents import fields_of
from offapi.init.infer_task import Inferred
from offapi.init.source import SourceRow
from offapi.text.display import plural, share

REPEATED = 0.5  # of a field's values, the share that must be repetitions
FEWEST = 20  # values

_FILE_NAME = re.compile(r"\w+")


def with_registers(
    inferred: Inferred, train: Sequence[SourceRow], held_out: Sequence[SourceRow]
) -> Inferred:
    """Add a list for each text field whose values repeat, and say what it covers."""
    registers: dict[str, tuple[str, ...]] = {}
    facts = list(inferred.facts)
    for field in _texts(inferred):
        values = _values(train, field)
        names = dict.fromkeys(values)
        few = len(values) < FEWEST or len(names) > (1 - REPEATED) * len(values)
        if few or any("\n" in name or name != name.strip() for name in names):
            continue
        registers[field] = tuple(sorted(names))
        facts.append(_fact(field, registers[field], _values(held_out, field)))
    draft = replace(inferred.draft, registers=registers)
    return replace(inferred, draft=draft, facts=tuple(facts))


def list_files(registers: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
    """Return the content of each list's file, by its name."""
    return {f"{field}.txt": "\n".join((*names, "")).encode() for field, names in registers.items()}


def _texts(inferred: Inferred) -> list[str]:
    """Return the fields that are free names: compared as text, strings, without choices."""
    schema = inferred.draft.schema or {}
    return [
        name
        for name, part in properties_of(schema, schema).items()
        if inferred.draft.match.get(name) == "text"
        and types_of(part, schema) == {"string"}
        and "enum" not in part
        and _FILE_NAME.fullmatch(name)
    ]


def _values(rows: Sequence[SourceRow], field: str) -> list[str]:
    values = [fields_of(row.answer).get(field) for row in rows if isinstance(row.answer, Mapping)]
    return [value for value in values if isinstance(value, str) and value.strip()]


def _fact(field: str, names: Sequence[str], held_out: Sequence[str]) -> str:
    listed = f"{field}: its values repeat, so {field}.txt lists the {plural(len(names), 'name')}"
    if not held_out:
        return f"{listed} for --constrain register"
    known = sum(value in names for value in held_out)
    covered = share(known, len(held_out), "held-out value", ("is", "are"))
    return (
        f"{listed} for --constrain register; {covered} in it, so complete it before you constrain"
        if known < len(held_out)
        else f"{listed} for --constrain register; {covered} in it"
    )
