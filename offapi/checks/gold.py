"""Check: the answer's fields equal the known ones, each compared by its kind.

Text: equal after lower-casing and dropping all but letters and digits. Date: the same
ISO date. Number: within 0.005. Left out: partial credit inside a field.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import date
from typing import Any, TypeGuard

from offapi.checks.verdict import Answer, Context, Match, Verdict

TOLERANCE = 0.005  # of a number, in its own unit: half a cent
_SLACK = 1e-9  # 0.125 - 0.12 is 0.0050000000000000044 in binary


def matches_gold(document: str, answer: Answer, context: Context) -> Verdict:
    """Share of the fields in `context.match` that equal the gold answer; ValueError where there is none."""
    if context.gold is None:
        raise ValueError("there is no gold answer to compare with")
    right = compare(answer.value, context.gold, context.match)
    wrong = [name for name, same in right.items() if not same]
    reason = f"differs from gold: {', '.join(wrong)}" if wrong else "equals gold"
    return Verdict(1.0 - len(wrong) / len(right), reason)


def compare(value: Mapping[str, Any] | None, gold: Mapping[str, Any], match: Mapping[str, Match]) -> dict[str, bool]:
    """Whether each field of `match` is right. A null gold field wants null or nothing; no value is all wrong."""
    if value is None:
        return dict.fromkeys(match, False)
    return {name: same(kind, value.get(name), gold[name]) for name, kind in match.items()}


def same(kind: Match, answer: object, gold: object) -> bool:
    """Whether `answer` equals `gold` as a text, date or number. Types count: "8.5" is no number."""
    if gold is None or answer is None:
        return answer is gold
    if kind == "number":
        return is_number(answer) and is_number(gold) and abs(answer - gold) <= TOLERANCE + _SLACK
    if not isinstance(answer, str) or not isinstance(gold, str):
        return False
    if kind == "date":
        return iso_date(answer) is not None and iso_date(answer) == iso_date(gold)
    return bare(answer) == bare(gold) and (bare(gold) != "" or answer.strip() == gold.strip())


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether `value` is a JSON number (True and False are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def bare(text: str) -> str:
    """Lower-case letters and digits of `text`, in any script, composed (NFKC); the rest is dropped."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(char for char in folded if _counts(char))


def _counts(char: str) -> bool:
    """Letters, digits, and the marks that spell vowels in some scripts (class below 200), not stray accents."""
    kind = unicodedata.category(char)[0]
    return kind in "LN" or (kind == "M" and unicodedata.combining(char) < 200)


def iso_date(text: str) -> date | None:
    """The date that `text` spells as YYYY-MM-DD, or None."""
    try:
        return date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) else None
    except ValueError:
        return None


def mistake(kind: Match, gold: object) -> str:
    """What keeps `gold` from being a gold value of `kind`, or "" when nothing does."""
    if gold is None:
        return ""
    if kind == "number":
        return "" if is_number(gold) else "must be a number or null"
    if not isinstance(gold, str):
        return "must be a string or null"
    if kind == "date" and iso_date(gold) is None:
        return "must be a date as YYYY-MM-DD"
    return ""
