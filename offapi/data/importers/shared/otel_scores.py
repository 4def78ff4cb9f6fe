"""Scores in OpenTelemetry's words, `gen_ai.evaluation.*`: on
the span they are about, in its events, or standing apart.

Those apart name their span by its id, as its child, or by the response's id. Left out:
explanations, and scores of spans in other records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from offapi.data.importers.shared.loose_json import Json, first, known
from offapi.data.importers.shared.otlp import Span
from offapi.data.importers.shared.reasons import Dropped

EVENT, NAME, RESPONSE = "gen_ai.evaluation.", "gen_ai.evaluation.name", "gen_ai.response.id"
VALUES = ("gen_ai.evaluation.score.value", "gen_ai.evaluation.score")
LABEL = "gen_ai.evaluation.score.label"
APART = Dropped(
    "a score, not an answer",
    "It is kept in source.scores of the answer that it names by span or response id, where both lie"
    " in one record (such as an OTLP object). Elsewhere, record it on the span or as the span's"
    " event.",
)
OF_ANOTHER = Dropped("a score of something that is no model's answer")
Scores = Mapping[str, Mapping[str, Json]]


def is_score_apart(span: Span) -> bool:
    """Whether it is a score that stands for itself,
    in a log record or as a span without duration.
    """
    return span.name.startswith(EVENT)


def scores_apart(spans: Iterable[Span]) -> Scores:
    """The scores that stand apart, by the ids of what they are about."""
    found: dict[str, dict[str, Json]] = {}
    for span in filter(is_score_apart, spans):
        for id in (span.parent_id or span.id, span.attributes.get(RESPONSE)):
            if isinstance(id, str):
                found.setdefault(id, {}).update(_score(span.name, span.attributes))
    return found


def scores_of(span: Span, others: Scores) -> dict[str, Json]:
    """The scores of `span` by name: the value, with a label
    beside it as NAME.label; the label where it is alone.
    """
    found = _score("", span.attributes)
    for name, attributes in span.events:
        found |= _score(name, attributes)
    for id in (span.attributes.get(RESPONSE), span.id):
        found |= others.get(id, {}) if isinstance(id, str) else {}
    return found


def _score(event: str, found: Mapping[str, Json]) -> dict[str, Json]:
    value, label = first(found, *VALUES), found.get(LABEL)
    name = str(found.get(NAME) or event.removeprefix(EVENT) or "evaluation")
    return (
        known(**{name: label}) if value is None else known(**{name: value, f"{name}.label": label})
    )
