"""The long document's task: it is read in parts, with tools.

Left out: tables and pictures.
"""

from __future__ import annotations

from typing import Any

from offapi import EpisodeState, Task
from offapi.checks import fits_schema, from_tools, is_json

PAGE = 1800  # characters
AROUND = 200  # characters shown on either side of what was found
FOUND = 3

INSTRUCTIONS = """\
An agreement is too long to be shown whole. Find its clause on termination, then answer with one
JSON object:
notice_days: the notice period for ending the agreement, in days,
liability_cap: the most for which the supplier is liable in total, in EUR."""


def find(text: str, state: EpisodeState) -> list[dict[str, Any]]:
    """Find the places of the document that contain a text, whatever its capitals.

    Args:
        text: A word or a few words as the document may print them.
    """
    whole, wanted = state.document.lower(), text.lower().strip()
    found: list[dict[str, Any]] = []
    at = whole.find(wanted) if wanted else -1
    while at >= 0 and len(found) < FOUND:
        shown = state.document[max(at - AROUND, 0) : at + len(wanted) + AROUND]
        found.append({"page": at // PAGE + 1, "text": shown})
        at = whole.find(wanted, at + AROUND)
    return found


def next_page(state: EpisodeState) -> str:
    """Return the next page of the document, the first at first; nothing after the last."""
    page = state.values["page"] = state.values.get("page", 0) + 1
    return state.document[(page - 1) * PAGE : page * PAGE]


SCHEMA = {
    "type": "object",
    "properties": {
        "notice_days": {"type": "integer", "minimum": 0},
        "liability_cap": {"type": "integer", "minimum": 0},
    },
    "required": ["notice_days", "liability_cap"],
    "additionalProperties": False,
}

task = Task(
    name="long-document",
    instructions=INSTRUCTIONS,
    schema=SCHEMA,
    tools=(find, next_page),
    opening=lambda document: f"{document.splitlines()[0]}\n({len(document) // PAGE + 1} pages)",
    checks={
        "valid JSON": (is_json, 1.0),
        "required fields": (fits_schema, 1.0),
        "from a tool": (from_tools("notice_days", "liability_cap"), 2.0),
    },
    match={"notice_days": "number", "liability_cap": "number"},
    max_turns=8,
    max_answer_tokens=48,
)
