"""Check: the answer's fields equal the gold ones, each compared by its kind.

What each kind calls equal is in `offapi.checks.kinds`. Left out: partial credit within a text, a
number or an item of a list.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from rapidfuzz import fuzz

from offapi.checks.fields import value_at
from offapi.checks.kinds import DEFAULT_THRESHOLD, Kind, Match, kind_of
from offapi.checks.verdict import Answer, Context, Verdict, needs
from offapi.text.fold import fold
from offapi.text.normalise import is_number, iso_date, text_key

HALF_A_CENT = 0.005


@needs("gold")
def matches_gold(document: str, answer: Answer, context: Context) -> Verdict:
    """Return the mean over the fields in `context.match`: 1 where equal to gold, else 0.

    A list counts by the F1 of its items, an object by the share of its fields. In a task that
    answers with text: 1 where the text equals gold. Raise ValueError without gold.
    """
    if context.gold is None:
        raise ValueError("there is no gold answer to compare with")
    if isinstance(context.gold, str):
        if not context.free_text:
            raise ValueError("gold is a text, not an object of fields")
        same = same_text(answer.text, context.gold)
        return Verdict(float(same), "equals gold" if same else "differs from gold")
    value = answer.value
    if value is None:
        return Verdict(0.0, f"differs from gold: {', '.join(context.match)}")
    scores = {
        path: score_value(kind, value_at(value, path), value_at(context.gold, path))
        for path, kind in context.match.items()
    }
    wrong = [path for path, score in scores.items() if score < 1.0]
    reason = f"differs from gold: {', '.join(wrong)}" if wrong else "equals gold"
    return Verdict(sum(scores.values()) / len(scores), reason)


@needs("gold")
def all_right(document: str, answer: Answer, context: Context) -> Verdict:
    """Return 1 where `matches_gold` finds every field right, else 0: success, as agents have it.

    Raise ValueError without gold.
    """
    verdict = matches_gold(document, answer, context)
    return Verdict(float(verdict.score == 1.0), verdict.reason)


def compare_fields(
    value: Mapping[str, Any] | None, gold: Mapping[str, Any], match: Mapping[str, Match]
) -> dict[str, bool]:
    """Return whether each field of `match` is right.

    Where gold is null, the field must be null or absent. Without a value every field is wrong.
    """
    if value is None:
        return dict.fromkeys(match, False)
    return {
        path: same_value(kind, value_at(value, path), value_at(gold, path))
        for path, kind in match.items()
    }


def same_value(match: Match, answer: object, gold: object) -> bool:
    """Return whether `answer` equals `gold` as a value of a kind.

    Types count: "8.5" is not a number.
    """
    return score_value(match, answer, gold) == 1.0


def score_value(match: Match, answer: object, gold: object) -> float:
    """Return 1 where `answer` equals `gold`, else 0; for lists and objects the share that is right.

    That is the F1 of two lists' items, and the share of an object's fields.
    """
    if gold is None or answer is None:
        return float(answer is gold)
    kind = kind_of(match)
    if kind.name == "list":
        return item_counts(answer, gold).f1 if isinstance(gold, list) else 0.0
    if kind.name == "object":
        parts = object_parts(answer, gold)
        return sum(parts.values()) / len(parts) if parts else float(answer == gold)
    return float(_EQUAL[kind.name](kind, answer, gold))


@dataclass(frozen=True)
class ItemCounts:
    """How many items two lists share, and how many each has."""

    shared: int
    answered: int
    gold: int

    @property
    def f1(self) -> float:
        """Twice the shared items over the items of both lists; 1 for two empty lists."""
        both = self.answered + self.gold
        return 2 * self.shared / both if both else 1.0


def item_counts(answer: object, gold: Sequence[object]) -> ItemCounts:
    """Count the shared items; each pairs with at most one equal item of the other list.

    What is not a list counts as one wrong item, null as an empty list.
    """
    if not isinstance(answer, list):
        return ItemCounts(0, int(answer is not None), len(gold))
    left = list(gold)
    for item in answer:
        match = next((i for i, other in enumerate(left) if same_item(item, other)), None)
        if match is not None:
            del left[match]
    return ItemCounts(len(gold) - len(left), len(answer), len(gold))


def object_parts(answer: object, gold: object) -> dict[str, bool]:
    """Return whether each field inside two objects is equal, by its dotted path.

    A null field equals an absent one, and is left out where both have none.
    """
    if not isinstance(gold, Mapping) or not isinstance(answer, Mapping):
        return {"": False}
    parts: dict[str, bool] = {}
    for name in dict.fromkeys([*gold, *answer]):
        inner, wanted = answer.get(name), gold.get(name)
        if inner is None and wanted is None:
            continue
        if isinstance(wanted, Mapping) and isinstance(inner, Mapping):
            nested = object_parts(inner, wanted)
            parts |= {f"{name}.{path}": right for path, right in nested.items()}
        else:
            parts[name] = same_item(inner, wanted)
    return parts


def same_item(item: object, gold: object) -> bool:
    """Return whether two JSON values are equal.

    Texts and numbers are compared as fields are, objects field by field; null equals absent.
    """
    if isinstance(gold, Mapping) and isinstance(item, Mapping):
        return all(same_item(item.get(name), gold.get(name)) for name in {*gold, *item})
    if isinstance(gold, list) and isinstance(item, list):
        return item_counts(item, gold).f1 == 1.0
    if isinstance(gold, str) and isinstance(item, str):
        return same_text(item, gold)
    if is_number(gold) or is_number(item):
        return same_number(item, gold)
    return item is gold or (type(item) is type(gold) and item == gold)


def same_text(answer: str, gold: str) -> bool:
    """Return whether two texts have the same letters, digits and signs (`text_key`)."""
    if answer == gold:
        return True
    wanted = text_key(gold)
    return text_key(answer) == wanted and (wanted != "" or answer.strip() == gold.strip())


def same_number(answer: object, gold: object, within: float | None = None) -> bool:
    """Return whether two numbers differ by at most `within`, or by gold's own precision."""
    if not is_number(answer) or not is_number(gold):
        return False
    allowed = precision(gold) if within is None else within
    rounding = 4 * math.ulp(max(abs(answer), abs(gold)))  # 0.125 - 0.12 is above 0.005 in binary
    return abs(answer - gold) <= allowed + rounding


@lru_cache(maxsize=4096)
def precision(number: float) -> float:
    """Return half of the last decimal of `number`; half a cent where it has two or fewer."""
    if number == round(number, 2):
        return HALF_A_CENT
    exponent = Decimal(f"{number:.12g}").normalize().as_tuple().exponent
    return min(0.5 * 10.0 ** int(exponent), HALF_A_CENT)


def _equal_text(kind: Kind, answer: object, gold: object) -> bool:
    if isinstance(answer, str) and isinstance(gold, str):
        return same_text(answer, gold)
    return isinstance(gold, bool) and answer is gold


def _equal_exact(kind: Kind, answer: object, gold: object) -> bool:
    if isinstance(answer, str) and isinstance(gold, str):
        return unicodedata.normalize("NFC", answer) == unicodedata.normalize("NFC", gold)
    if isinstance(answer, list) and isinstance(gold, list):
        pairs = zip(answer, gold, strict=False)
        return len(answer) == len(gold) and all(_equal_exact(kind, *pair) for pair in pairs)
    if isinstance(answer, Mapping) and isinstance(gold, Mapping):
        names = answer.keys()
        return names == gold.keys() and all(
            _equal_exact(kind, answer[name], gold[name]) for name in names
        )
    if isinstance(answer, bool) or isinstance(gold, bool):
        return answer is gold
    return answer == gold


def _equal_number(kind: Kind, answer: object, gold: object) -> bool:
    if not is_number(gold) or (kind.within is None and kind.relative is None):
        return same_number(answer, gold)
    return same_number(answer, gold, max(kind.within or 0.0, (kind.relative or 0.0) * abs(gold)))


def _equal_date(kind: Kind, answer: object, gold: object) -> bool:
    if not isinstance(answer, str) or not isinstance(gold, str):
        return False
    return iso_date(answer) is not None and iso_date(answer) == iso_date(gold)


def _equal_boolean(kind: Kind, answer: object, gold: object) -> bool:
    return isinstance(gold, bool) and answer is gold


def _equal_fuzzy(kind: Kind, answer: object, gold: object) -> bool:
    if not isinstance(answer, str) or not isinstance(gold, str):
        return False
    threshold = DEFAULT_THRESHOLD if kind.threshold is None else kind.threshold
    return same_text(answer, gold) or fuzz.ratio(_words(answer), _words(gold)) >= threshold


def _words(text: str) -> str:
    return " ".join(fold(text).casefold().split())


_EQUAL: Mapping[str, Callable[[Kind, object, object], bool]] = {
    "text": _equal_text,
    "exact": _equal_exact,
    "number": _equal_number,
    "date": _equal_date,
    "boolean": _equal_boolean,
    "choice": _equal_exact,
    "fuzzy": _equal_fuzzy,
}
