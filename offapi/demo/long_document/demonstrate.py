"""A scripted teacher for the long document: it searches by words until a result has the answer.

Left out: reading page by page, which the student may find by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from offapi.data.documents import Document, fields_of
from offapi.tools import ToolCall, Turn

WORDS = ("notice period", "written notice", "liability")


def take_turn(document: Document, messages: Sequence[Mapping[str, Any]]) -> Turn | None:
    """Return the next turn of `document`'s episode; None gives it up."""
    gold = fields_of(document.gold)
    results = [message["content"] for message in messages if message["role"] == "tool"]
    wanted = f"{gold['liability_cap']:,}"
    if any(wanted in text for text in results):
        return Turn(json.dumps(gold))
    if len(results) == len(WORDS):
        return None
    return Turn("", (ToolCall(f"call_{len(results) + 1}", "find", {"text": WORDS[len(results)]}),))
