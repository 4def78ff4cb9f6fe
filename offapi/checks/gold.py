"""Check: the answer's fields equal the gold ones, each compared by its kind.

Text: equal after lower-casing and dropping everything but letters and digits. Date: the same ISO
date. Number: within 0.005. List: the F1 of its items in any order; an item is right as a whole or
not at all. Left out: partial credit within a text, a number or an item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from offapi.checks.verdict import Answer, Context, Match, Verdict
from offapi.text.normalise import bare, is_number, iso_date

TOLERANCE = 0.005  # of a number, in its own unit: half a cent
_SLACK = 1e-9  # 0.125 - 0.12 is 0.0050000000000000044 in binary


def matches_gold(document: str, answer: Answer, context: Context) -> Verdict:
    """Return the mean over the fields in `context.match`: 1 where equal to gold, F1 for a list.

    Raise ValueError without gold.
    """
    if context.gold is None:
        raise ValueError("there is no gold answer to compare with")
    value = answer.value
    if value is None:
        return Verdict(0.0, f"differs from gold: {', '.join(context.match)}")
    scores = {
        name: score_value(kind, value.get(name), context.gold[name])
        for name, kind in context.match.items()
    }
    wrong = [name for name, score in scores.items() if score < 1.0]
    reason = f"differs from gold: {', '.join(wrong)}" if wrong else "equals gold"
    return Verdict(sum(scores.values()) / len(scores), reason)


def compare_fields(
    value: Mapping[str, Any] | None, gold: Mapping[str, Any], match: Mapping[str, Match]
) -> dict[str, bool]:
    """Return whether each field of `match` is right.

    Where gold is null, the field must be null or absent. Without a value every field is wrong.
    """
    if value is None:
        return dict.fromkeys(match, False)
    return {name: same_value(kind, value.get(name), gold[name]) for name, kind in match.items()}


def same_value(kind: Match, answer: object, gold: object) -> bool:
    """Return whether `answer` equals `gold` as a text, date, number or list.

    Types count: "8.5" is not a number.
    """
    return score_value(kind, answer, gold) == 1.0


def score_value(kind: Match, answer: object, gold: object) -> float:
    """Return 1 where `answer` equals `gold`, else 0; for two lists, the F1 of their items.

    F1 is twice the number of shared items over the number of items in both lists.
    """
    if gold is None or answer is None:
        return float(answer is gold)
    if kind == "number":
        return float(_same_number(answer, gold))
    if kind == "list":
        return _f1(answer, gold) if isinstance(answer, list) and isinstance(gold, list) else 0.0
    if not isinstance(answer, str) or not isinstance(gold, str):
        return 0.0
    if kind == "date":
        return float(iso_date(answer) is not None and iso_date(answer) == iso_date(gold))
    return float(_same_text(answer, gold))


def _f1(answer: Sequence[object], gold: Sequence[object]) -> float:
    """Return the F1 of two lists; each item pairs with at most one equal item of the other list."""
    left = list(gold)
    for item in answer:
        match = next((i for i, other in enumerate(left) if same_item(item, other)), None)
        if match is not None:
            del left[match]
    shared = len(gold) - len(left)
    return 2 * shared / (len(answer) + len(gold)) if answer or gold else 1.0


def same_item(item: object, gold: object) -> bool:
    """Return whether two JSON values are equal.

    Texts and numbers are compared as fields are, objects field by field; null equals absent.
    """
    if isinstance(gold, Mapping) and isinstance(item, Mapping):
        return all(same_item(item.get(name), gold.get(name)) for name in {*gold, *item})
    if isinstance(gold, list) and isinstance(item, list):
        return _f1(item, gold) == 1.0
    if isinstance(gold, str) and isinstance(item, str):
        return _same_text(item, gold)
    if is_number(gold) or is_number(item):
        return _same_number(item, gold)
    return item is gold or (type(item) is type(gold) and item == gold)


def _same_number(answer: object, gold: object) -> bool:
    return is_number(answer) and is_number(gold) and abs(answer - gold) <= TOLERANCE + _SLACK


def _same_text(answer: str, gold: str) -> bool:
    return bare(answer) == bare(gold) and (bare(gold) != "" or answer.strip() == gold.strip())


def gold_mistake(kind: Match, gold: object) -> str:
    """Return why `gold` cannot be a gold value of `kind`, or "" if it can."""
    if gold is None:
        return ""
    if kind == "number":
        return "" if is_number(gold) else "must be a number or null"
    if kind == "list":
        return "" if isinstance(gold, list) else "must be a list or null"
    if not isinstance(gold, str):
        return "must be a string or null"
    if kind == "date" and iso_date(gold) is None:
        return "must be a date (YYYY-MM-DD)"
    return ""
