"""A scripted teacher: the turns that a careful clerk would take, written from the known answer.

`offapi label --teacher script:demonstrate.py` runs it with the task's own tools, so the results
in its traces are true. Left out: receipts whose company no search of it finds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rapidfuzz import fuzz

from offapi.data.documents import Document, fields_of
from offapi.tools import ToolCall, Turn

ALIKE = 80.0  # of 100: names that only address or number can tell apart
SEARCHES = 3


def take_turn(document: Document, messages: Sequence[Mapping[str, Any]]) -> Turn | None:
    """Return the next turn of `document`'s episode; None gives it up."""
    gold = fields_of(document.gold)
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    searches = [call for call in calls if call["function"]["name"] == "search_vendors"]
    results = [message["content"] for message in messages if message["role"] == "tool"]
    found = _found(results)
    if any(row["name"] == gold["vendor"] for row in found):
        if len(searches) == len(calls) and _ambiguous(found, gold["vendor"]):
            meant = next(row for row in found if row["name"] == gold["vendor"])
            return _call(len(calls), "get_vendor", id=meant["id"])
        return Turn(json.dumps(gold, ensure_ascii=False))
    if len(searches) == SEARCHES:
        return None
    return _call(len(calls), "search_vendors", query=_query(document, gold, len(searches)))


def _call(before: int, name: str, **arguments: Any) -> Turn:
    return Turn("", (ToolCall(f"call_{before + 1}", name, arguments),))


def _query(document: Document, gold: Mapping[str, Any], tried: int) -> str:
    """Return the printed line most like the registered name, shorter with each attempt."""
    words = _printed(document.text, gold["vendor"]).split()
    return " ".join(words[: max(len(words) - tried, 1)])


def _printed(text: str, name: str) -> str:
    """Return the words of a line of `text` that are most like `name`."""
    parts: list[str] = []
    for words in map(str.split, text.splitlines()):
        for start in range(len(words)):
            parts += [" ".join(words[start:end]) for end in range(start + 1, len(words) + 1)]
    return max(parts, key=lambda part: fuzz.ratio(part.lower(), name.lower())).strip(" *:-")


def _found(results: Sequence[str]) -> list[Mapping[str, Any]]:
    rows = [json.loads(text) for text in results if not text.startswith("Error: ")]
    return [row for each in rows if isinstance(each, list) for row in each]


def _ambiguous(found: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether another company that was found has nearly the name `name`."""
    others = {row["name"] for row in found} - {name}
    return any(fuzz.ratio(other.lower(), name.lower()) > ALIKE for other in others)
