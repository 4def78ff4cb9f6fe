"""Checks of an agent's whole trace: which tools it used, and whether they support its answer.

A result that begins with "Error: " supports nothing: errors repeat the model's own words. Left
out: whether calls fit their tools, see `tool_calls`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from offapi.checks.fields import value_at
from offapi.checks.in_source import value_occurs
from offapi.checks.verdict import Answer, Check, Context, Verdict, needs
from offapi.text.display import plural
from offapi.text.normalise import bare

ERROR = "Error: "  # how the content of a failed call's message begins


def tool_used(*names: str) -> Check:
    """Return a check: the share of the tools `names` that were called and answered, not in vain."""
    if not names:
        raise ValueError("tool_used needs the name of a tool")

    def tool_used(document: str, answer: Answer, context: Context) -> Verdict:
        used = {name for name, _, _ in _answered(context.messages)}
        missing = [name for name in names if name not in used]
        if not missing:
            return Verdict(1.0, "every tool asked for was used")
        return Verdict(1.0 - len(missing) / len(names), f"not used: {', '.join(missing)}")

    return tool_used


def no_repeated_calls(document: str, answer: Answer, context: Context) -> Verdict:
    """Return the share of the calls in `context.messages` that equal no earlier one."""
    seen: set[tuple[str, str]] = set()
    count = 0
    for message in context.messages:
        for call in message.get("tool_calls") or ():
            count += 1
            function = call["function"]
            seen.add((function["name"], _canonical(function["arguments"])))
    if count == len(seen):
        return Verdict(1.0, "no call is repeated")
    again = plural(count - len(seen), "call repeats", "calls repeat")
    return Verdict(len(seen) / count, f"{again} an earlier one")


def from_tools(*fields: str) -> Check:
    """Return a check: the share of the answer's `fields` that are a tool's result, as a whole.

    A text must equal a text of a JSON result or a line of another, but for capitals, spaces and
    marks. A field that is null, or that `match` does not compare, does not count.
    """
    if not fields:
        raise ValueError("from_tools needs the name of a field")

    @needs("object")
    def from_tools(document: str, answer: Answer, context: Context) -> Verdict:
        return _supported(answer, context, fields, None)

    return from_tools


@needs("object")
def supported(document: str, answer: Answer, context: Context) -> Verdict:
    """Return the share of the answer's fields that are in the document, or a tool's result."""
    return _supported(answer, context, tuple(context.match), document)


def _supported(
    answer: Answer, context: Context, fields: Sequence[str], document: str | None
) -> Verdict:
    if answer.value is None:
        return Verdict(0.0, answer.error)
    results = list(_results(context.messages))
    whole = {bare(line) for line in results}
    texts = "\n".join(results)
    missing, count = [], 0
    for name in fields:
        value = value_at(answer.value, name)
        if value is None or name not in context.match:
            continue
        count += 1
        kind = context.match[name]
        given = document is not None and value_occurs(kind, value, document)
        found = bare(value) in whole if isinstance(value, str) else value_occurs(kind, value, texts)
        if not given and not found:
            missing.append(name)
    if not missing:
        return Verdict(1.0, "every value is supported")
    score = 1.0 - len(missing) / count
    return Verdict(score, f"not supported: {', '.join(missing)}", tuple(missing))


def _answered(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Yield (tool, arguments, result) of every call that has a result which is not an error."""
    waiting: dict[str, tuple[str, str]] = {}
    for message in messages:
        for call in message.get("tool_calls") or ():
            function = call["function"]
            waiting[str(call.get("id"))] = function["name"], function["arguments"]
        if message.get("role") != "tool":
            continue
        called = waiting.pop(str(message.get("tool_call_id")), None)
        text = str(message.get("content") or "")
        if called is not None and not text.startswith(ERROR):
            yield *called, text


def _results(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of all results: of JSON its texts and numbers, each as one."""
    for _, _, text in _answered(messages):
        try:
            yield from map(str, _leaves(json.loads(text)))
        except (ValueError, RecursionError):
            yield from text.splitlines()


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    elif value is not None and not isinstance(value, bool):
        yield value


def _canonical(arguments: str) -> str:
    with suppress(ValueError, RecursionError):
        return json.dumps(json.loads(arguments), sort_keys=True)
    return arguments
