"""The vendor-agent's task, written as a user would write a task file with tools.

Left out: tools that write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from offapi import EpisodeState, Task
from offapi.checks import fits_schema, from_tools, is_json, no_repeated_calls, supported

REGISTER = Path(__file__).parent / "register.db"
FOUND = 5  # companies that a search returns

INSTRUCTIONS = """\
Read the receipt. Look up the company that is paid in the register, then answer with one JSON object:
vendor: its registered name, date: when the receipt was issued, as YYYY-MM-DD, total: what is to be paid in the end.
Names are printed shortened or misread. If several companies are alike, compare address and number."""  # noqa: E501


def search_vendors(query: str, state: EpisodeState) -> list[dict[str, Any]]:
    """Find the companies of the register whose names are most like a printed name.

    Args:
        query: The name as it is printed, or a part of it.
    """
    text = " ".join(query.lower().split())
    trigrams = {text[i : i + 3].replace('"', '""') for i in range(len(text) - 2)}
    if not trigrams:
        return []
    found = state.sqlite(REGISTER).execute(
        "SELECT rowid, name FROM names WHERE names MATCH ? ORDER BY rank LIMIT ?",
        (" OR ".join(f'"{each}"' for each in sorted(trigrams)), FOUND),
    )
    return [{"id": id, "name": name} for id, name in found]


def get_vendor(id: int, state: EpisodeState) -> dict[str, Any]:
    """Return a company's registered name, address and number.

    Args:
        id: The company's id, as a search returned it.
    """
    row = state.sqlite(REGISTER).execute("SELECT * FROM vendors WHERE id = ?", (id,)).fetchone()
    if row is None:
        raise ValueError(f"the register has no company {id}")
    return dict(zip(("id", "name", "address", "number"), row, strict=True))


SCHEMA = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string", "minLength": 1},
        "date": {"type": "string", "format": "date"},
        "total": {"type": "number", "minimum": 0},
    },
    "required": ["vendor", "date", "total"],
    "additionalProperties": False,
}

task = Task(
    name="vendor-agent",
    instructions=INSTRUCTIONS,
    schema=SCHEMA,
    tools=(search_vendors, get_vendor),
    checks={
        "valid JSON": (is_json, 1.0),
        "required fields": (fits_schema, 1.0),
        "supported": (supported, 1.0),
        "vendor from the register": (from_tools("vendor"), 2.0),
        "no call twice": (no_repeated_calls, 0.5),
    },
    match={"vendor": "text", "date": "date", "total": "number"},
    max_turns=6,
    max_answer_tokens=96,
)
