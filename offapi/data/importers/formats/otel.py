"""OpenTelemetry spans of models (GenAI semantic conventions), in the names of several versions.

Messages are read from the span's attributes (`gen_ai.input.messages`), from its events, from the
log records that represent it, and from the numbered attributes of older instrumentations
(`gen_ai.prompt.0.content`); scores as in `otel_scores`. Left out: log records of single messages,
and content kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from offapi.data.importers.shared import otel_scores, reasons, settings
from offapi.data.importers.shared.flat_keys import numbered_array
from offapi.data.importers.shared.loose_json import Json, first, items, known, obj, opened
from offapi.data.importers.shared.otel_scores import Scores
from offapi.data.importers.shared.otlp import Span, read_spans
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace

NO_CONTENT = Dropped(
    "a span without messages",
    "Set OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY (older instrumentations:"
    " true) where the application runs, and record again; what was not recorded is lost.",
)
CALLS = ("chat", "generate_content", "text_completion", "completion")
DETAILS = "gen_ai.client.inference.operation.details"
ROLES = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}
USAGE = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "cache_read": ("gen_ai.usage.cache_read.input_tokens",),
    "cache_write": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
    ),
    "reasoning": ("gen_ai.usage.reasoning.output_tokens",),
}
REQUEST = ("gen_ai.request.", "gen_ai.openai.request.", "openai.request.")


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the rows in `record`: one for each span, or for each of a span's answers."""
    spans = list(read_spans(record))
    scores = otel_scores.scores_apart(spans)
    for span in spans:
        yield from _rows(span, scores)


def _rows(span: Span, scores: Scores) -> Iterator[Trace | Dropped]:
    attributes = dict(span.attributes)
    for name, details in span.events:
        if name == DETAILS:
            attributes |= details
    operation = first(attributes, "gen_ai.operation.name", "llm.request.type")
    calls = operation in CALLS if operation else _models(attributes)
    if otel_scores.is_score_apart(span):
        yield otel_scores.APART
    elif not calls:
        yield otel_scores.OF_ANOTHER if otel_scores.scores_of(span, {}) else reasons.NOT_A_CALL
    elif span.failed:
        yield reasons.FAILED
    elif span.name in ROLES or span.name == "gen_ai.choice":
        yield NO_CONTENT
    else:
        yield from _answers(span, attributes, otel_scores.scores_of(span, scores))


def _models(attributes: Mapping[str, Json]) -> bool:
    return (
        first(attributes, "gen_ai.request.model", "gen_ai.response.model", "gen_ai.system")
        is not None
    )


def _answers(
    span: Span, attributes: Mapping[str, Json], scores: Mapping[str, Json]
) -> Iterator[Trace | Dropped]:
    asked, answers = _recorded(attributes) or _numbered(attributes) or _events(span) or ([], [])
    if not asked and not answers:
        yield NO_CONTENT
        return
    instructions = opened(attributes.get("gen_ai.system_instructions"))
    system = [{"role": "system", "content": instructions}] if instructions else []
    endings = items(attributes.get("gen_ai.response.finish_reasons"))
    for i, answer in enumerate(answers or [None]):
        ending = endings[i] if i < len(endings) else obj(answer).get("finish_reason")
        yield build_trace(
            [*system, *asked] if asked else asked,
            answer,
            tools=first(attributes, "gen_ai.tool.definitions", "gen_ai.request.tools"),
            id=span.id,
            group=attributes.get("gen_ai.conversation.id") or span.trace_id,
            finish_reason=ending,
            model=first(attributes, "gen_ai.response.model", "gen_ai.request.model"),
            ts=span.started,
            usage=known(**{name: first(attributes, *names) for name, names in USAGE.items()}),
            trace_id=span.trace_id,
            params=_params(attributes),
            scores=scores,
        )


def _params(attributes: Mapping[str, Json]) -> dict[str, Json]:
    asked = {
        key.removeprefix(start): value
        for start in REQUEST
        for key, value in attributes.items()
        if key.startswith(start)
    }
    return settings.stated_settings(asked)


def _recorded(attributes: Mapping[str, Json]) -> tuple[Sequence[Json], Sequence[Json]] | None:
    """Return the messages in one attribute, structured or as JSON text.

    The older names are `gen_ai.prompt` and `gen_ai.completion`.
    """
    asked = items(first(attributes, "gen_ai.input.messages", "gen_ai.prompt"))
    answers = items(first(attributes, "gen_ai.output.messages", "gen_ai.completion"))
    return (asked, answers) if asked or answers else None


def _numbered(attributes: Mapping[str, Json]) -> tuple[Sequence[Json], Sequence[Json]] | None:
    asked, answers = (
        numbered_array(attributes, "gen_ai.prompt"),
        numbered_array(attributes, "gen_ai.completion"),
    )
    return (asked, answers) if asked or answers else None


def _events(span: Span) -> tuple[Sequence[Json], Sequence[Json]] | None:
    """Return the messages in a span's events, one for each.

    Their body is in an attribute, as JSON text, or is the attributes.
    """
    asked: list[Json] = []
    answers: list[Json] = []
    for name, attributes in span.events:
        body = obj(attributes.get("gen_ai.event.content")) or attributes
        if name in ROLES:
            asked.append(
                {"tool_call_id": body.get("id"), **body, "role": body.get("role") or ROLES[name]}
            )
        elif name == "gen_ai.choice":
            answers.append({**obj(body.get("message")), "finish_reason": body.get("finish_reason")})
        elif name == "gen_ai.content.prompt":
            asked += items(attributes.get("gen_ai.prompt"))
        elif name == "gen_ai.content.completion":
            answers += items(attributes.get("gen_ai.completion"))
    return (asked, answers) if asked or answers else None
