"""A task from rows with answers: instructions, schema, match, checks, worked examples, lengths.

Every inference is named with the rows it rests on, and so is what is uncertain. Left out: the
words of a judge's rubric, which only a person knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import orjson

from offapi.checks.kinds import KindName
from offapi.checks.schema_types import choices_of, properties_of, types_of
from offapi.data.documents import KnownAnswer, fields_of
from offapi.errors import DataError
from offapi.init.infer_schema import AnswerShape, Schema, infer_schema
from offapi.init.python_text import Code, PythonCall
from offapi.init.source import SourceRow
from offapi.text.display import plural, share
from offapi.text.normalise import iso_date

MOSTLY = 0.8  # share of answers that are objects in a task of fields
LONG_WORDS = 8.0  # mean words of a field that is compared as free text
BYTES_A_TOKEN = 2.0  # of JSON and prose, at the least: digits are tokens of their own
MARGIN = 1.25  # answers to come may be longer than those seen
SHORTEST = 32  # answer tokens
LONGEST_PHRASE = 60  # characters of a closing line that every answer must have
EVERY = 0.95  # share of answers that have it


@dataclass(frozen=True)
class DraftTask:
    """A task before it is written: the parts of its file, in plain values."""

    name: str
    instructions: str
    schema: Schema | None
    match: Mapping[str, KindName]
    checks: Mapping[str, Code | PythonCall]
    max_answer_tokens: int
    examples: tuple[tuple[str, KnownAnswer], ...] = ()
    registers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by field, its names


@dataclass(frozen=True)
class Inferred:
    """The draft, the rows that it is made from, those left out with the reason, and the notes."""

    draft: DraftTask
    rows: tuple[SourceRow, ...]
    left_out: tuple[tuple[SourceRow, str], ...]
    facts: tuple[str, ...]  # what was inferred, and from how many rows
    unsure: tuple[str, ...]


def infer_task(name: str, rows: Sequence[SourceRow]) -> Inferred:
    """Return the task that the answers of `rows` show; all rows have one."""
    objects = sum(isinstance(row.answer, Mapping) for row in rows)
    inferred = _of_fields(name, rows) if objects >= MOSTLY * len(rows) else _of_text(name, rows)
    found = _instructions(inferred.rows, inferred.draft)
    return replace(
        inferred,
        draft=replace(inferred.draft, instructions=found[0]),
        facts=(found[1], *inferred.facts),
        unsure=(*found[2], *inferred.unsure),
    )


def placeholder(name: str) -> DraftTask:
    """Return a task for documents without answers: fields to be replaced by one's own."""
    title, date = {"type": "string"}, {"type": ["string", "null"], "format": "date"}
    schema = {
        "type": "object",
        "properties": {"title": title, "date": date},
        "required": ["title", "date"],
        "additionalProperties": False,
    }
    match: Mapping[str, KindName] = {"title": "text", "date": "date"}
    checks = {**_JSON_CHECKS, "in the document": Code("in_source")}
    return DraftTask(name, _from_schema(schema), schema, match, checks, 64)


_JSON_CHECKS: Mapping[str, Code | PythonCall] = {
    "valid JSON": Code("is_json"), "fits the schema": Code("fits_schema")
}  # fmt: skip


def _of_fields(name: str, rows: Sequence[SourceRow]) -> Inferred:
    usable = [row for row in rows if isinstance(row.answer, Mapping)]
    why = "the answer is not one JSON object"
    left_out = [(row, why) for row in rows if not isinstance(row.answer, Mapping)]
    answers = [fields_of(row.answer) for row in usable]
    shape: AnswerShape = infer_schema(answers, [row.document for row in usable])
    left_out += [(usable[i], why) for i, why in shape.unlike.items()]
    kept = [row for i, row in enumerate(usable) if i not in shape.unlike]
    unsure = list(shape.unsure)
    match = _kinds(shape.schema, [fields_of(row.answer) for row in kept], unsure)
    if not match:
        step = "Give the answers a field whose name has no brackets."
        raise DataError("no field of the answers can be compared.", next_step=step)
    spelled = max(len(orjson.dumps(row.answer)) for row in kept)
    draft = DraftTask(name, "", shape.schema, match, dict(_JSON_CHECKS), _tokens(spelled))
    fields = ", ".join(
        f"{path} ({_shown(kind, shape.schema, path)})" for path, kind in match.items()
    )
    facts = (f"fields: {fields}; from {plural(len(kept), 'answer')}",)
    return Inferred(draft, tuple(kept), tuple(left_out), facts, tuple(unsure))


def _shown(kind: KindName, schema: Schema, path: str) -> str:
    choices = [value for value in choices_of(_at(schema, path), schema) if value is not None]
    return f"choice of {len(choices)}" if kind == "choice" else kind


def _at(schema: Schema, path: str) -> Any:
    part: Any = schema
    for name in [path] if path in schema.get("properties", {}) else path.split("."):
        part = properties_of(part, schema).get(name, {})
    return part


def _kinds(
    schema: Schema, answers: Sequence[Mapping[str, Any]], unsure: list[str], path: str = ""
) -> dict[str, KindName]:
    """Return the kind of every field; fields inside objects by their dotted path."""
    kinds: dict[str, KindName] = {}
    for name, part in properties_of(schema, schema).items():
        inner = f"{path}.{name}" if path else name
        values = [answer.get(name) for answer in answers]
        filled = [value for value in values if value is not None]
        types = types_of(part, part)
        names = properties_of(part, part)
        plain = not any(mark in key for key in (name, *names) for mark in (".", "[", "]"))
        if types == {"object"} and names and plain:
            kinds |= _kinds(part, filled, unsure, inner)
        elif (not path and "[" not in name) or plain:
            kinds[inner] = _kind(part, types, filled, inner, unsure)
        else:
            unsure.append(f"{inner} is not compared: its name reads as a path")
    return kinds


def _kind(
    part: Schema, types: frozenset[str], values: Sequence[Any], path: str, unsure: list[str]
) -> KindName:
    if len(types) > 1 and not types <= {"integer", "number"}:
        return "exact"
    if choices_of(part, part):
        return "choice"
    for type_, kind in _KIND_OF_TYPE.items():
        if type_ in types:
            return kind
    if any(one.get("format") == "date" for one in (part, *part.get("anyOf", ()))):
        return "date"
    return _kind_of_text([value for value in values if isinstance(value, str)], path, unsure)


_KIND_OF_TYPE: Mapping[str, KindName] = {
    "object": "object", "array": "list", "boolean": "boolean", "number": "number",
    "integer": "number",
}  # fmt: skip


def _kind_of_text(values: Sequence[str], path: str, unsure: list[str]) -> KindName:
    """Return how texts are compared: codes exactly, names as text, sentences by similarity."""
    if not values:
        return "text"
    dates = sum(iso_date(value[:10]) is not None for value in values)
    if dates and dates < len(values):
        unsure.append(f"{path}: {dates} of {len(values)} values are dates; compared as text")
    if fmean(len(value.split()) for value in values) > LONG_WORDS:
        unsure.append(f"{path} holds sentences: right if 90 of 100 similar (kind fuzzy)")
        return "fuzzy"
    codes = sum(any(map(str.isdigit, value)) and " " not in value for value in values)
    return "exact" if codes >= 0.9 * len(values) else "text"


def _of_text(name: str, rows: Sequence[SourceRow]) -> Inferred:
    usable = [row for row in rows if isinstance(row.answer, str)]
    left_out = [(row, "the answer is an object") for row in rows if not isinstance(row.answer, str)]
    texts = [str(row.answer).strip() for row in usable]
    low, high = min(map(len, texts)), max(map(len, texts))
    bounds = PythonCall("length", [("", _round_down(low)), ("", _round_up(high))])
    checks: dict[str, Code | PythonCall] = {"length": bounds, "no loop": Code("no_repetition()")}
    checks["clean"] = Code("clean_characters")
    size = f"{low:,} to {plural(high, 'character')}"
    facts = [f"answers are free text of {size}; from {plural(len(texts), 'answer')}"]
    closing = _closing(texts)
    if closing:
        checks["closing"] = PythonCall("must_contain", [("", closing)])
        facts.append(f"nearly every answer ends with {closing!r}")
    longest = max(len(text.encode()) for text in texts)
    draft = DraftTask(name, "", None, {}, checks, _tokens(longest))
    unsure = ("what makes an answer good: add checks of your own, or a judge (offapi.judge)",)
    return Inferred(draft, tuple(usable), tuple(left_out), tuple(facts), unsure)


def _closing(texts: Sequence[str]) -> str:
    """Return the line that nearly all answers have among their last three, "" without one."""
    lines = Counter(line.strip() for text in texts for line in set(text.splitlines()[-3:]))
    line, count = max(lines.items(), key=lambda pair: (pair[1], len(pair[0])))
    wordy = any(map(str.isalpha, line)) and len(line) <= LONGEST_PHRASE
    return line if wordy and count >= max(EVERY * len(texts), 3) else ""


def _instructions(rows: Sequence[SourceRow], draft: DraftTask) -> tuple[str, str, tuple[str, ...]]:
    """Return the instructions, where they are from, and what is uncertain of them."""
    prompts = Counter(row.system.strip() for row in rows if row.system.strip())
    if not prompts:
        words = _from_schema(draft.schema) if draft.schema else "Answer the message."
        return (
            words,
            "instructions: written from the answers, as no row has a system prompt",
            ("the instructions: say in task.py what each field means, or how to answer",),
        )
    prompt, count = prompts.most_common(1)[0]
    fact = f"instructions: the system prompt of {count} of {plural(len(rows), 'row')}"
    if count == len(rows):
        return prompt, fact, ()
    rest = share(len(rows) - count, len(rows), "row", ("has", "have"))
    others = f"{rest} another system prompt, or none"
    return prompt, fact, (others,)


def _from_schema(schema: Schema) -> str:
    lines = ["Read the text and answer with one JSON object and nothing else:"]
    for name, part in properties_of(schema, schema).items():
        types = sorted(types_of(part, part))
        choices = [value for value in choices_of(part, part) if value is not None]
        words = f"one of {', '.join(map(str, choices))}" if choices else " or ".join(types)
        if part.get("format") == "date":
            words = "date as YYYY-MM-DD"
        if types == ["array"]:
            words = "list of what the text names"
        stated = part.get("type")
        nullable = isinstance(stated, list) and "null" in stated
        lines.append(f"{name}: {words or 'value'}{', or null' if nullable else ''}")
    return "\n".join(lines)


def _tokens(longest: int) -> int:
    """Return the tokens that the longest answer may take, in steps of 16."""
    return max(SHORTEST, -(-int(longest * MARGIN / BYTES_A_TOKEN) // 16) * 16)


def _round_down(size: int) -> int:
    return max(1, size // 2 // 5 * 5)


def _round_up(size: int) -> int:
    return -(-size * 3 // 2 // 10) * 10
