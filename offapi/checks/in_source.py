"""Check: the answer's values occur in the document, however the document writes them.

A date or number counts as found when some reading of the document gives it; which of
several is the right one is for other checks to say. Names may differ by a few
characters, as scans do. Left out: values that must be computed, such as sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from functools import lru_cache

from rapidfuzz import fuzz

from offapi.checks import literals
from offapi.checks.readings import date_readings, month_names, number_readings
from offapi.checks.verdict import Answer, Context, Match, Verdict
from offapi.text.normalise import bare, is_number, iso_date

NAME_SIMILARITY = 85.0  # of 100: two wrong characters in a name of fifteen
_LONGEST_LINE = 200  # characters read in a line by itself
_SHORT = 5  # characters; below this a near miss is another word


def in_source(document: str, answer: Answer, context: Context) -> Verdict:
    """Share of the answer's fields (those in `context.match`,
    null ones aside) whose value is in the document.

    A list counts by the share of its items that are there, an object in it only as a whole.
    """
    if answer.value is None:
        return Verdict(0.0, answer.error)
    found: dict[str, float] = {}
    for name, kind in context.match.items():
        value = answer.value.get(name)
        if value is not None:
            found[name] = (
                _share(value, document)
                if kind == "list"
                else float(value_occurs(kind, value, document))
            )
    if not found:
        return Verdict(0.0, "no field has a value")
    missing = [name for name, share in found.items() if share < 1.0]
    reason = (
        f"not in the document: {', '.join(missing)}"
        if missing
        else "all values are in the document"
    )
    return Verdict(sum(found.values()) / len(found), reason)


def value_occurs(kind: Match, value: object, document: str) -> bool:
    """Whether `document` holds `value` in any usual spelling of its kind.

    A number's sign is not asked for.
    """
    if kind == "number":
        return is_number(value) and (
            literals.number_stands(value, document)
            or any(abs(abs(value) - found) < 0.005 for found in number_readings(document))
        )
    if kind == "list":
        return _share(value, document) == 1.0
    if not isinstance(value, str):
        return False
    if kind == "text":
        return _name_occurs(value, document)
    day = iso_date(value)
    if day is None:
        return False
    return (
        literals.date_stands(day, document)
        or _in_words(day, document)
        or day in date_readings(document)
    )


def _in_words(day: date, document: str) -> bool:
    """Whether a line that may name the month gives `day`;
    a line alone is read much faster than the document.
    """
    lower = document.lower()
    for name in month_names(day.month):
        at = lower.find(name)
        while at >= 0:
            first, last = lower.rfind("\n", 0, at) + 1, lower.find("\n", at)
            line = document[first : last if last >= 0 else None]
            if len(line) <= _LONGEST_LINE and day in date_readings(line):
                return True
            at = lower.find(name, last) if last >= 0 else -1
    return False


def _share(value: object, document: str) -> float:
    if not isinstance(value, list):
        return 0.0
    return sum(_holds(item, document) for item in value) / len(value) if value else 1.0


def _holds(item: object, document: str) -> bool:
    return all(
        value_occurs(
            "number" if is_number(leaf) else "date" if iso_date(str(leaf)) else "text",
            leaf,
            document,
        )
        for leaf in _leaves(item)
    )


def _leaves(item: object) -> Iterator[object]:
    """The texts and numbers in `item`; true, false and null are no words of a document."""
    if isinstance(item, Mapping):
        for part in item.values():
            yield from _leaves(part)
    elif isinstance(item, list):
        for part in item:
            yield from _leaves(part)
    elif isinstance(item, str) or is_number(item):
        yield item


@lru_cache(maxsize=256)
def _bare_document(document: str) -> str:
    return bare(document)


def _name_occurs(name: str, document: str) -> bool:
    wanted, text = bare(name), _bare_document(document)
    if not wanted:
        return name.strip() != "" and name.strip() in document
    if wanted in text:
        return True
    if len(wanted) < _SHORT or len(wanted) > len(text):
        return False
    return fuzz.partial_ratio(wanted, text, score_cutoff=NAME_SIMILARITY) > 0
