"""Check: the answer's values occur in the document, however the document writes them.

A date or number occurs when some reading of the document gives it; other checks decide which of
several readings is right. Names may differ by a few letters, as in scans, never by a digit. Left
out: values that must be computed, such as sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date

from offapi.checks import literals
from offapi.checks.fields import value_at
from offapi.checks.gold import HALF_A_CENT, precision
from offapi.checks.kinds import KindName, Match, kind_of
from offapi.checks.numbers import number_readings
from offapi.checks.text_search import exact_stands, text_stands
from offapi.checks.verdict import Answer, Context, Verdict, needs
from offapi.text.fold import fold_document
from offapi.text.normalise import is_number, iso_date

_NOT_PRINTED = ("boolean", "choice", "fuzzy")  # kinds whose values are not looked for
_LONGEST_LINE = 200  # characters; longer lines are not read by themselves


@needs("object")
def in_source(document: str, answer: Answer, context: Context) -> Verdict:
    """Return the share of the answer's fields whose value is in the document.

    Counted are the fields in `context.match` that are neither null nor blank and that documents
    print: not true and false, choices and free text ("fuzzy"). A list counts by the share of its
    items that occur, an object by the share of its fields; an object in a list counts only as a
    whole. Whether a field may be null is the schema's to say.
    """
    if answer.value is None:
        return Verdict(0.0, answer.error)
    shares: dict[str, float] = {}
    for path, kind in context.match.items():
        value = value_at(answer.value, path)
        name = kind_of(kind).name
        if value is None or name in _NOT_PRINTED or (isinstance(value, str) and not value.strip()):
            continue
        if name in ("list", "object"):
            shares[path] = _share(value, document)
        else:
            shares[path] = float(_occurs(name, value, document))
    if not shares:
        return Verdict(1.0, "no field has a value to look for")
    missing = [name for name, share in shares.items() if share < 1.0]
    reason = "all values are in the document"
    if missing:
        reason = f"not in the document: {', '.join(missing)}"
    return Verdict(sum(shares.values()) / len(shares), reason, tuple(missing))


def value_occurs(kind: Match, value: object, document: str) -> bool:
    """Return whether `document` contains `value` in any usual spelling of its kind.

    The sign of a number is ignored.
    """
    return _occurs(kind_of(kind).name, value, document)


def _occurs(name: KindName, value: object, document: str) -> bool:
    if name == "number":
        return is_number(value) and _number_occurs(abs(value), document)
    if name in ("list", "object"):
        return _share(value, document) == 1.0
    if not isinstance(value, str):
        return name == "exact" and _holds(value, document)
    if name == "exact":
        return exact_stands(value, document)
    if name != "date":
        return text_stands(value, document)
    day = iso_date(value)
    return day is not None and (
        literals.date_stands(day, fold_document(document)) or _date_occurs(day, document)
    )


def _number_occurs(value: float, document: str) -> bool:
    """Return whether a number of `document` equals `value`, to the precision of both."""
    if literals.number_stands(value, fold_document(document)):
        return True
    return any(
        abs(value - number) <= HALF_A_CENT
        and abs(value - number) < min(precision(value), precision(number))
        for number in number_readings(document)
    )


def _date_occurs(day: date, document: str) -> bool:
    """Return whether `document` names `day`; first on lines that may name its month.

    Reading one line is much faster than reading the document.
    """
    from offapi.checks.dates import date_readings, month_beginnings  # 25 ms of patterns

    lower = document.lower()
    for name in month_beginnings(day.month):
        at = lower.find(name)
        while at >= 0:
            first, last = lower.rfind("\n", 0, at) + 1, lower.find("\n", at)
            line = document[first : last if last >= 0 else None]
            if len(line) <= _LONGEST_LINE and day in date_readings(line):
                return True
            at = lower.find(name, last) if last >= 0 else -1
    return day in date_readings(document)


def _share(value: object, document: str) -> float:
    if isinstance(value, Mapping):
        value = [part for part in value.values() if part is not None]
    if not isinstance(value, list):
        return 0.0
    return sum(_holds(item, document) for item in value) / len(value) if value else 1.0


def _holds(item: object, document: str) -> bool:
    return all(_occurs(_kind(leaf), leaf, document) for leaf in _leaves(item))


def _kind(leaf: object) -> KindName:
    if is_number(leaf):
        return "number"
    return "date" if iso_date(str(leaf)) else "text"


def _leaves(item: object) -> Iterator[object]:
    """Yield the texts and numbers in `item`; documents do not contain true, false or null."""
    if isinstance(item, Mapping):
        for part in item.values():
            yield from _leaves(part)
    elif isinstance(item, list):
        for part in item:
            yield from _leaves(part)
    elif isinstance(item, str) or is_number(item):
        yield item
