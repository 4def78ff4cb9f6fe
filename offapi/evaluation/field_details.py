"""What the accuracy of a field leaves out: nulls apart, the items of lists, the fields of objects.

Computed from predictions; those written by version 0.1.0 have nulls only. Left out: answers in
text, which have no fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from offapi.checks.fields import value_at
from offapi.checks.gold import item_counts, object_parts
from offapi.checks.kinds import Match, kind_of
from offapi.stats.bootstrap import shares
from offapi.stats.interval import Interval

if TYPE_CHECKING:
    from offapi.evaluation.accuracy import Prediction

# By field: of a list [shared items, answered, in gold]; of an object whether each field is right.
Inside = Mapping[str, Sequence[int] | Mapping[str, bool]]
NULL_HEAD = ("field", "right", "null right", "wrong", "invented", "missed")
INSIDE_HEAD = ("inside lists and objects", "right")


@dataclass(frozen=True)
class NullCounts:
    """How many documents of a field are what: a value or null, right or not.

    Invented: a value where gold is null. Missed: null where gold has a value. Answers that were not
    read as an object count as `unread` alone.
    """

    right: int = 0
    null_right: int = 0
    wrong: int = 0
    invented: int = 0
    missed: int = 0
    unread: int = 0


@dataclass(frozen=True)
class ItemScore:
    """Of all items of a list in all documents, how many are right; None where there are none."""

    f1: float | None
    precision: float | None  # of the answered items
    recall: float | None  # of the items in gold

    def percent(self) -> str:
        """Write F1 in percent, then precision and recall."""
        f1, precision, recall = map(_percent, (self.f1, self.precision, self.recall))
        return f"F1 {f1} (precision {precision}, recall {recall})"


@dataclass(frozen=True)
class FieldDetails:
    """The details of each field that has some."""

    nulls: Mapping[str, NullCounts]
    items: Mapping[str, ItemScore]
    parts: Mapping[str, Mapping[str, Interval]]  # by object, then by field inside

    @classmethod
    def of(cls, predictions: Sequence[Prediction]) -> FieldDetails:
        """Count the fields of `predictions`, which are answers to one task's documents."""
        if not predictions or predictions[0].of_text:
            return cls({}, {}, {})
        nulls = {path: _count_nulls(predictions, path) for path in predictions[0].correct}
        items: dict[str, ItemScore] = {}
        parts: dict[str, Mapping[str, Interval]] = {}
        for path in predictions[0].correct:
            found = [row.inside.get(path) for row in predictions]
            lists = [each for each in found if isinstance(each, Sequence)]
            if lists:
                items[path] = _score_items(lists)
            elif any(found):
                parts[path] = _rate_parts(predictions, path)
        return cls(nulls, items, parts)

    @property
    def has_nulls(self) -> bool:
        """Whether any gold or answer is null."""
        return any(one.null_right + one.invented + one.missed for one in self.nulls.values())

    def null_rows(self) -> list[tuple[str, ...]]:
        """Return the counts for people, under NULL_HEAD."""
        return [
            (path, *map(str, (n.right, n.null_right, n.wrong + n.unread, n.invented, n.missed)))
            for path, n in self.nulls.items()
        ]

    def inside_rows(self) -> list[tuple[str, str]]:
        """Return what is right inside lists and objects for people, under INSIDE_HEAD."""
        rows = [(f"{path}[]", score.percent()) for path, score in self.items.items()]
        for path, rates in self.parts.items():
            rows += [(f"{path}.{name}", rate.percent()) for name, rate in rates.items()]
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints; lists and objects only where there are some."""
        parts: dict[str, Any] = {}
        for path, rates in self.parts.items():
            parts[path] = _as_dicts(rates)
        found: dict[str, Any] = {"nulls": _as_dicts(self.nulls), "items": _as_dicts(self.items)}
        found["inside"] = parts
        return {name: value for name, value in found.items() if value}


def _as_dicts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(value) for name, value in values.items()}


def compare_inside(
    value: Mapping[str, Any] | None, gold: Mapping[str, Any], match: Mapping[str, Match]
) -> dict[str, Sequence[int] | Mapping[str, bool]]:
    """Compare the items of each list and the fields of each object of `match` with gold."""
    inside: dict[str, Sequence[int] | Mapping[str, bool]] = {}
    for path, match_kind in match.items():
        name = kind_of(match_kind).name
        if name not in ("list", "object"):
            continue
        answer, known = value_at(value or {}, path), value_at(gold, path)
        if name == "list":
            counts = item_counts(answer, known or [])
            inside[path] = [counts.shared, counts.answered, counts.gold]
        else:
            inside[path] = object_parts(answer if isinstance(answer, Mapping) else {}, known or {})
    return inside


def read_inside(stored: Mapping[str, Any]) -> dict[str, Sequence[int] | Mapping[str, bool]]:
    """Return what a predictions file holds, without what is neither counts nor fields."""
    read: dict[str, Sequence[int] | Mapping[str, bool]] = {}
    for path, found in stored.items():
        if (isinstance(found, Mapping) and all(isinstance(ok, bool) for ok in found.values())) or (
            isinstance(found, list) and len(found) == 3 and all(type(n) is int for n in found)
        ):
            read[path] = found
    return read


def _count_nulls(predictions: Sequence[Prediction], path: str) -> NullCounts:
    counts = dict.fromkeys(NullCounts.__dataclass_fields__, 0)
    for row in predictions:
        counts[_null_case(row, path)] += 1
    return NullCounts(**counts)


def _null_case(row: Prediction, path: str) -> str:
    if not isinstance(row.value, Mapping) or not isinstance(row.gold, Mapping):
        return "unread"
    answer, gold = value_at(row.value, path), value_at(row.gold, path)
    if gold is None:
        return "null_right" if answer is None else "invented"
    if answer is None:
        return "missed"
    return "right" if row.correct[path] else "wrong"


def _score_items(counts: Sequence[Sequence[int]]) -> ItemScore:
    shared, answered, gold = (sum(column) for column in zip(*counts, strict=True))
    return ItemScore(
        f1=_share(2 * shared, answered + gold),
        precision=_share(shared, answered),
        recall=_share(shared, gold),
    )


def _rate_parts(predictions: Sequence[Prediction], path: str) -> dict[str, Interval]:
    """Return the share of documents in which each field inside an object is right.

    A field that neither the answer nor gold has is right, unless the answer was unread.
    """
    found = [row.inside.get(path) for row in predictions]
    parts = [each if isinstance(each, Mapping) else {} for each in found]
    names = dict.fromkeys(name for each in parts for name in each)
    right: list[list[bool]] = []
    for name in names:
        pairs = zip(parts, predictions, strict=True)
        right.append([each.get(name, row.value is not None) for each, row in pairs])
    rates = shares(right, [row.group for row in predictions])
    return dict(zip(names, rates, strict=True))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.1f}"
