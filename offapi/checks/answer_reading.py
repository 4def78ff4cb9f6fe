"""How an answer is read, the same everywhere: strict JSON, after what stands around it.

Set aside, and kept with the answer so that it can be counted: thinking, one code fence around the
whole answer, and the call of a tool whose arguments are the answer. A strict task refuses the last
two. Other forms are named and never repaired, since a repair would be graded instead of the model.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from itertools import islice
from typing import Any

from offapi.checks.verdict import Answer, parse
from offapi.data.traces import Trace
from offapi.text.display import plural
from offapi.text.thinking import strip_thinking

# The forms an answer can have, besides plain. Those after `CALL` leave no object to use; where a
# strict task refuses an answer, its last form is the cause.
THINKING, FENCE, CALL = "thinking", "a code fence", "a tool call"
EMPTY, UNFINISHED, CALLS = "empty", "thinking without an end", "several tool calls"
CUT_SHORT, LIST_OF_ONE, LIST = "cut short", "a list of one object", "a list"
QUOTED, OTHER_JSON = "JSON inside a JSON string", "JSON, but not an object"
SEVERAL, AROUND = "several JSON objects", "text around a JSON object"
PYTHON, BROKEN, TEXT = "a Python value, not JSON", "broken JSON", "text without JSON"
FORMS = (
    THINKING, FENCE, CALL, EMPTY, UNFINISHED, CALLS, CUT_SHORT, LIST_OF_ONE, LIST, QUOTED,
    OTHER_JSON, SEVERAL, AROUND, PYTHON, BROKEN, TEXT,
)  # fmt: skip

_FENCE = re.compile(r"\s*(`{3,}|~{3,}|`(?=[{\[]))(?:[^\n{\[`]*\n|[\w+-]*)(.*)", re.DOTALL)
_STRICT = "and the task is strict"
_DECODER = json.JSONDecoder()


def read_answer(text: str, *, strict: bool = False) -> Answer:
    """Read the one JSON object that `text` is, perhaps after thinking or in one code fence."""
    answer = parse(text)
    if answer.value is not None:
        return answer
    rest = strip_thinking(text)
    forms: tuple[str, ...] = () if rest == text else (THINKING,)
    inner = _inside_fence(rest)
    if inner is not None:
        forms = (*forms, FENCE)
        if strict:
            return Answer(rest, None, f"in {FENCE}, {_STRICT}", forms)
    read = parse(rest if inner is None else inner)
    if read.value is not None:
        return replace(read, forms=forms)
    form, error = _name_form(read, bool(text.strip()))
    return Answer(read.text, None, error, (*forms, form))


def read_text(text: str) -> Answer:
    """Read the answer of a task that answers with text: all of it, after thinking.

    Its `value` is None, and `error` says so, or why there is no text.
    """
    rest = strip_thinking(text).strip()
    forms: tuple[str, ...] = () if rest == text.strip() else (THINKING,)
    if rest:
        return Answer(rest, None, "the task answers with text", forms)
    form, error = _name_form(Answer("", None), bool(text.strip()))
    return Answer("", None, error, (*forms, form))


def read_trace(trace: Trace, *, strict: bool = False) -> Answer:
    """Read the answer that the last message of `trace` gives, as text or as a tool call."""
    last = trace.messages[-1]
    if trace.called:
        if strict:
            return Answer(trace.answer, None, f"in {CALL}, {_STRICT}", (CALL,))
        read = read_answer(trace.answer)
        return replace(read, forms=(CALL, *read.forms))
    if last.get("tool_calls") and not trace.answer.strip():
        count = len(last["tool_calls"])
        return Answer("", None, f"{plural(count, 'tool call')}, not one answer", (CALLS,))
    return read_answer(last.get("content") or "", strict=strict)


def _inside_fence(text: str) -> str | None:
    """Return what stands in the one code fence around all of `text`, one of its ends or both.

    A model that was stopped at the closing fence leaves it out, one whose answer was begun for it
    the opening one.
    """
    if opening := _FENCE.fullmatch(text):
        mark, inner = opening[1], opening[2].rstrip()
        return inner.removesuffix(mark).strip()
    bare = text.strip()
    return bare[:-3].rstrip() if bare.startswith("{") and bare.endswith("```") else None


def _name_form(read: Answer, given: bool) -> tuple[str, str]:
    """Return the form of an answer that is not one JSON object, and the error to show."""
    text = read.text.strip()
    if not text:
        return (UNFINISHED, "the thinking has no end") if given else (EMPTY, "the answer is empty")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _name_broken(text, read.error, error)
    if isinstance(value, list):
        one = len(value) == 1 and isinstance(value[0], dict)
        return (LIST_OF_ONE, f"{LIST_OF_ONE}, not an object") if one else (LIST, read.error)
    if isinstance(value, str) and parse(value).value is not None:
        return QUOTED, f"{QUOTED}, not an object"
    return (BROKEN if isinstance(value, dict) else OTHER_JSON), read.error


def _name_broken(text: str, error: str, cause: Exception) -> tuple[str, str]:
    if text.startswith(("{", "[")):
        _, end = _object_at(text, 0)
        if end:
            several = text[end:].lstrip(" \t\r\n,").startswith("{")
            form = SEVERAL if several else AROUND
            return form, f"{error} ({form})"
        if isinstance(cause, json.JSONDecodeError) and _breaks_off(text, cause):
            return CUT_SHORT, f"{error} ({CUT_SHORT})"
        return (PYTHON, f"{error} ({PYTHON})") if _is_python(text) else (BROKEN, error)
    for opening in islice(re.finditer(r"\{", text), _LOOKED_AT):
        value, _ = _object_at(text, opening.start())
        if isinstance(value, dict):
            return AROUND, f"{error} ({AROUND})"
    return (BROKEN, error) if "{" in text else (TEXT, error)


_LOOKED_AT = 20  # opening braces in prose


def _object_at(text: str, start: int) -> tuple[Any, int]:
    """Return the JSON value that begins at `start`, and its end; None and 0 without any."""
    try:
        return _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, 0


def _breaks_off(text: str, error: json.JSONDecodeError) -> bool:
    return error.pos >= len(text) or error.msg.startswith("Unterminated")


def _is_python(text: str) -> bool:
    if not re.search(r"'|\b(None|True|False)\b", text):
        return False
    try:
        return isinstance(ast.literal_eval(text), dict | list)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
