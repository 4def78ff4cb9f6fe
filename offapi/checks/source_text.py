"""Check: the answer's values occur in the document, however the document writes them.

A date or number counts as found when some reading of the document gives it; which of
several is the right one is for other checks to say. Names may differ by a few
characters, as scans do. Left out: values that must be computed, such as sums.
"""

from __future__ import annotations

from rapidfuzz import fuzz

from offapi.checks.gold import bare, is_number, iso_date
from offapi.checks.readings import dates, numbers
from offapi.checks.verdict import Answer, Context, Match, Verdict

NAME_SIMILARITY = 85.0  # of 100: two wrong characters in a name of fifteen
_SHORT = 5  # characters; below this a near miss is another word


def in_source(document: str, answer: Answer, context: Context) -> Verdict:
    """Share of the answer's fields (those in `context.match`, null ones aside) whose value is in the document."""
    if answer.value is None:
        return Verdict(0.0, answer.error)
    given = {name: answer.value[name] for name in context.match if answer.value.get(name) is not None}
    if not given:
        return Verdict(0.0, "no field has a value")
    missing = [name for name, value in given.items() if not occurs(context.match[name], value, document)]
    reason = f"not in the document: {', '.join(missing)}" if missing else "all values are in the document"
    return Verdict(1.0 - len(missing) / len(given), reason)


def occurs(kind: Match, value: object, document: str) -> bool:
    """Whether `document` holds `value` in any usual spelling of its kind. A number's sign is not asked for."""
    if kind == "number":
        return is_number(value) and any(abs(abs(value) - found) < 0.005 for found in numbers(document))
    if not isinstance(value, str):
        return False
    return iso_date(value) in dates(document) if kind == "date" else _name_occurs(value, document)


def _name_occurs(name: str, document: str) -> bool:
    wanted, text = bare(name), bare(document)
    if not wanted:
        return name.strip() != "" and name.strip() in document
    if wanted in text:
        return True
    if len(wanted) < _SHORT or len(wanted) > len(text):
        return False
    return fuzz.partial_ratio(wanted, text, score_cutoff=NAME_SIMILARITY) > 0
