"""OpenTelemetry spans of models (GenAI semantic conventions), in the names of several versions.

Messages are read from the span's attributes (`gen_ai.input.messages`), from its events, from the
log records that represent it, and from what other instrumentations write: see `otel_content`;
scores as in `otel_scores`. Left out: log records of single messages, and content kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.shared import otel_scores, reasons, settings
from offapi.data.importers.shared.exchange import pair_rows
from offapi.data.importers.shared.loose_json import Json, first, items, known, obj, opened
from offapi.data.importers.shared.otel_content import ROLES, content_keys, recorded
from offapi.data.importers.shared.otel_scores import Scores
from offapi.data.importers.shared.otlp import Span, is_span, read_spans
from offapi.data.importers.shared.reading import unwrapped
from offapi.data.importers.shared.reasons import Dropped, Unusable
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace

NO_CONTENT = Dropped(
    "a span without messages",
    "Set OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY (older instrumentations:"
    " true) where the application runs, and record again; what was not recorded is lost.",
)
OUTER = Dropped(
    "an outer span of the Vercel AI SDK, whose calls are spans of their own",
    "Export the spans that end in .doGenerate and .doStream too. To learn from this span alone, use"
    " the generic format with --map input=$.attributes['ai.prompt'] --map"
    " output=$.attributes['ai.response.text'].",
)
CALLS = (
    *("chat", "generate_content", "text_completion", "completion", "chat.completions"),
    *("responses", "response", "text.completions"),
)
DETAILS = "gen_ai.client.inference.operation.details"
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
MODELS = (
    *("gen_ai.response.model", "gen_ai.request.model", "ai.response.model", "ai.model.id"),
    *("mlflow.llm.model", "gen_ai.system", "gen_ai.provider.name"),
)
KINDS = ("mlflow.spanType", "langsmith.span.kind", "langfuse.observation.type")
MODEL_KINDS = ("chat_model", "llm", "generation")
VERCEL_CALLS = (".doGenerate", ".doStream", "ai.generateObject", "ai.streamObject")
OUTER_SPANS = ("ai.generateText", "ai.streamText")
WRAPPING = ("langsmith.", "mlflow.")  # what went in and came out are objects there
WAY = (
    "Use the generic format with --map to the attributes that hold the question and the answer, for"
    " instance --map input=$.attributes['KEY'] --map output=$.attributes['KEY']."
)
REQUEST = ("gen_ai.request.", "gen_ai.openai.request.", "openai.request.")


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the rows in `record`: one for each span, or for each of a span's answers."""
    if not is_span(record):
        yield reasons.unread(record)
        return
    spans = list(read_spans(record))
    scores = otel_scores.scores_apart(spans)
    for span in spans:
        yield from _rows(span, scores)


def _rows(span: Span, scores: Scores) -> Iterator[Trace | Dropped]:
    attributes = dict(span.attributes)
    for name, details in span.events:
        if name == DETAILS:
            attributes |= details
    calls = _is_call(attributes)
    if otel_scores.is_score_apart(span):
        yield otel_scores.APART
    elif _operation(attributes) in OUTER_SPANS:
        yield OUTER
    elif not calls:
        yield otel_scores.OF_ANOTHER if otel_scores.scores_of(span, {}) else reasons.NOT_A_CALL
    elif span.failed:
        yield reasons.FAILED
    elif span.name in ROLES or span.name == "gen_ai.choice":
        yield NO_CONTENT
    elif span.lost:
        yield reasons.PARTS_LOST
    else:
        try:
            yield from _answers(span, attributes, otel_scores.scores_of(span, scores))
        except Unusable as error:
            yield error.dropped


def _operation(attributes: Mapping[str, Json]) -> str:
    return str(attributes.get("ai.operationId") or "")


def _is_call(attributes: Mapping[str, Json]) -> bool:
    """Return whether a span is a model's call: by its kind, else by whether it names a model."""
    operation = first(attributes, "gen_ai.operation.name", "llm.request.type")
    if operation:
        return operation in CALLS
    for name in KINDS:
        if attributes.get(name) is not None:
            return str(attributes[name]).strip('"').lower() in MODEL_KINDS
    if _operation(attributes):
        return _operation(attributes).endswith(VERCEL_CALLS)
    return first(attributes, *MODELS) is not None


def _answers(
    span: Span, attributes: Mapping[str, Json], scores: Mapping[str, Json]
) -> Iterator[Trace | Dropped]:
    found = recorded(span, attributes)
    if found is None:
        keys = content_keys(attributes)
        yield reasons.unread(dict.fromkeys(keys), WAY) if keys else NO_CONTENT
        return
    instructions = opened(attributes.get("gen_ai.system_instructions"))
    system = [{"role": "system", "content": instructions}] if instructions else []
    endings = items(attributes.get("gen_ai.response.finish_reasons"))
    endings = endings or [first(attributes, "ai.response.finishReason", "ai.finishReason")]
    offered = first(attributes, "gen_ai.tool.definitions", "gen_ai.request.tools")
    about = {"tools": offered or found.tools, **_about(span, attributes, scores)}
    if found.pair is not None:
        asked, said = found.pair
        if any(key.startswith(WRAPPING) for key in attributes):
            asked, said = unwrapped(asked), unwrapped(said)
        yield from pair_rows(asked, said, ending=endings[0], **about)
        return
    for i, answer in enumerate(found.answers or [None]):
        ending = endings[i] if i < len(endings) else None
        yield build_trace(
            [*system, *found.asked] if found.asked else found.asked,
            answer,
            finish_reason=ending or obj(answer).get("finish_reason"),
            **about,
        )


def _about(
    span: Span, attributes: Mapping[str, Json], scores: Mapping[str, Json]
) -> dict[str, Json]:
    return {
        "id": span.id,
        "group": attributes.get("gen_ai.conversation.id") or span.trace_id,
        "model": first(attributes, *MODELS),
        "ts": span.started,
        "usage": known(**{name: first(attributes, *names) for name, names in USAGE.items()}),
        "trace_id": span.trace_id,
        "params": _params(attributes),
        "scores": scores,
    }


def _params(attributes: Mapping[str, Json]) -> dict[str, Json]:
    asked = {
        key.removeprefix(start): value
        for start in REQUEST
        for key, value in attributes.items()
        if key.startswith(start)
    }
    return settings.stated_settings(asked)
