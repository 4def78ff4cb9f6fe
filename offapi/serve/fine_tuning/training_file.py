"""The chats of an uploaded training file: each line read and checked as OpenAI does on arrival.

An error names the line and the field, and never what stands there. Left out: pairs of answers and
examples for reinforcement, which the recipes of the server do not learn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from offapi.data.importers.formats import openai_ft
from offapi.data.traces import Trace
from offapi.files.contents import BOM, LARGEST
from offapi.serve.errors import ApiError, wrong

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
PAIRS = ("preferred_output", "non_preferred_output")
CODE = "invalid_file_format"


def read_examples(path: Path) -> Iterator[Trace]:
    """Yield the chats of a file, named by their lines. Raise ApiError at the first wrong line."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LARGEST + 1):
            number += 1
            if len(line) > LARGEST:
                raise _wrong(number, f"the line has more than {LARGEST >> 20} MiB.")
            text = line.removeprefix(BOM) if number == 1 else line
            if text.strip():
                yield _example(number, text)


def count_examples(path: Path) -> int:
    """Return the number of chats in a file. Raise ApiError where one is wrong, or there is none."""
    count = sum(1 for _ in read_examples(path))
    if not count:
        raise wrong("file", "The file has no examples: write a chat on each line.", CODE)
    return count


def _example(number: int, line: bytes) -> Trace:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise _wrong(number, "the line is not JSON in UTF-8.") from None
    if not isinstance(record, dict):
        raise _wrong(number, "the line is not a JSON object.")
    if any(name in record for name in PAIRS):
        raise _wrong(number, "pairs of answers (DPO) are not learned here; give one answer each.")
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _wrong(number, "'messages' must be a list of at least one message.")
    for at, message in enumerate(messages):
        _check_message(number, f"messages[{at}]", message)
    if messages[-1]["role"] != "assistant":
        raise _wrong(number, f"messages[{len(messages) - 1}] must be the assistant's answer.")
    try:
        found = next(openai_ft.rows(record))
    except RecursionError:
        raise _wrong(number, "the line is nested too deeply.") from None
    if not isinstance(found, Trace):
        reason = getattr(found, "reason", "it is not a chat with an answer")
        raise _wrong(number, f"the chat cannot be learned: {reason}.")
    return replace(found, id=f"line-{number}", source=None)


def _check_message(number: int, place: str, message: Any) -> None:
    """Raise ApiError for a message without a known role, or whose content is not text."""
    if not isinstance(message, dict):
        raise _wrong(number, f"{place} must be an object.")
    if message.get("role") not in ROLES:
        raise _wrong(number, f"{place}.role must be one of: {', '.join(ROLES)}.")
    content = message.get("content")
    if isinstance(content, list):
        if not all(map(_is_text_part, content)):
            raise _wrong(number, f"{place}.content must have parts of type 'text' alone.")
    elif content is None:
        if not message.get("tool_calls") and not message.get("function_call"):
            raise _wrong(number, f"{place}.content is missing.")
    elif not isinstance(content, str):
        raise _wrong(number, f"{place}.content must be text.")
    weight = message.get("weight")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        raise _wrong(number, f"{place}.weight must be 0 or 1.")


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and "text" in part


def _wrong(number: int, message: str) -> ApiError:
    return wrong("file", f"Invalid file format. Line {number}: {message}", CODE)
