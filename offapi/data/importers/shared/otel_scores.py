"""Scores in OpenTelemetry's terms, `gen_ai.evaluation.*`.

They are on the span they are about, in its events, or separate. Separate ones name their span by
its id, as its child, or by the response's id. Left out: explanations, and scores of spans in other
records.
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
    "It is kept in source.scores of the answer that it names by span or response id, where both are"
    " in one record (such as an OTLP object). Otherwise record it on the span, or as the span's"
    " event.",
)
OF_ANOTHER = Dropped("a score of something that is no model's answer")
Scores = Mapping[str, Mapping[str, Json]]


def is_score_apart(span: Span) -> bool:
    """Return whether `span` is a separate score: a log record, or a span without duration."""
    return span.name.startswith(EVENT)


def scores_apart(spans: Iterable[Span]) -> Scores:
    """Return the separate scores, by the ids of what they are about."""
    scores: dict[str, dict[str, Json]] = {}
    for span in filter(is_score_apart, spans):
        for id in (span.parent_id or span.id, span.attributes.get(RESPONSE)):
            if isinstance(id, str):
                scores.setdefault(id, {}).update(_score(span.name, span.attributes))
    return scores


def scores_of(span: Span, others: Scores) -> dict[str, Json]:
    """Return the scores of `span` by name.

    A score is its value, with a label as NAME.label; or the label alone where there is no value.
    """
    scores = _score("", span.attributes)
    for name, attributes in span.events:
        scores |= _score(name, attributes)
    for id in (span.attributes.get(RESPONSE), span.id):
        scores |= others.get(id, {}) if isinstance(id, str) else {}
    return scores


def _score(event: str, attributes: Mapping[str, Json]) -> dict[str, Json]:
    value, label = first(attributes, *VALUES), attributes.get(LABEL)
    name = str(attributes.get(NAME) or event.removeprefix(EVENT) or "evaluation")
    return (
        known(**{name: label}) if value is None else known(**{name: value, f"{name}.label": label})
    )
