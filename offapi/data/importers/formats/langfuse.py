"""Langfuse's observations, from the blob export, the API and the web page's download.

The export writes snake_case, the other two camelCase. A generation's input is a list of messages
(or items of the Responses API), an object with `messages` and `tools`, or a plain text. Its output
is a message, items, a whole response, or else what the model said. Each may be JSON text.
LangChain's handler appends the tools' definitions as messages; they are recognised. Scores in the
same object are kept in the source. Left out: Parquet and CSV, other observations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.formats import openai
from offapi.data.importers.shared import reasons, responses_api, settings
from offapi.data.importers.shared.loose_json import (
    Json,
    first,
    items,
    json_text,
    known,
    moment,
    obj,
    opened,
)
from offapi.data.importers.shared.messages import is_message
from offapi.data.importers.shared.reasons import Dropped, Unusable
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace

NO_CONTENT = Dropped(
    "an observation without input or output",
    "Select the field group `io` for the export (in the API: fields=core,basic,io,model,usage); the"
    " web page's download leaves it out of large traces.",
)
NO_CHAT = Dropped(
    "the input is neither messages nor a text",
    "Use the generic format, for instance --map input=$.input.question --map"
    " output=$.output.answer.",
)
RESPONSE_ITEMS = ("message", "function_call", "function_call_output", "reasoning")
Scores = Mapping[Json, Mapping[str, Json]]


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the rows in `record`: an observation, a page, or a trace with its observations."""
    trace = obj(record.get("trace")) or record
    inner = first(record, "observations", "data")
    page = inner if isinstance(inner, list) else trace.get("observations")
    if not isinstance(page, list):
        yield from _observation(record, {}, {})
        return
    scores = _scores([*items(record.get("scores")), *items(trace.get("scores"))])
    for observation in map(obj, page):
        yield from _observation(observation, trace, scores)


def _scores(listed: list[Json]) -> Scores:
    """Return the scores by the observation or trace they are about."""
    scores: dict[Json, dict[str, Json]] = {}
    for score in map(obj, listed):
        about = first(score, "observationId", "observation_id", "traceId", "trace_id")
        if isinstance(about, str):
            value = first(score, "stringValue", "string_value", "value")
            scores.setdefault(about, {})[str(score.get("name"))] = value
    return scores


def _observation(
    observation: Mapping[str, Json], trace: Mapping[str, Json], scores: Scores
) -> Iterator[Trace | Dropped]:
    asked, answer = opened(observation.get("input")), opened(observation.get("output"))
    if observation.get("type", "GENERATION") != "GENERATION" or not (
        "input" in observation or "type" in observation
    ):
        yield reasons.NOT_A_CALL
    elif observation.get("level") == "ERROR":
        yield reasons.FAILED
    elif asked is None and answer is None:
        yield NO_CONTENT
    elif isinstance(answer, dict) and isinstance(first(answer, "choices", "output"), list):
        about = _about(observation, trace, scores)
        response = {**answer, "model": about.pop("model", None), "usage": about.pop("usage", None)}
        yield from openai.exchange(_request(asked, observation), response, **about)
    else:
        yield _row(asked, answer, observation, _about(observation, trace, scores))


def _about(
    observation: Mapping[str, Json], trace: Mapping[str, Json], scores: Scores
) -> dict[str, Json]:
    id, trace_id = observation.get("id"), first(observation, "traceId", "trace_id")
    return known(
        id=id,
        group=first(observation, "sessionId", "session_id") or trace.get("sessionId") or trace_id,
        model=first(observation, "model", "providedModelName", "provided_model_name"),
        ts=moment(first(observation, "startTime", "start_time")),
        usage=first(observation, "usageDetails", "usage_details", "usage"),
        cost=first(observation, "totalCost", "total_cost", "calculatedTotalCost"),
        trace_id=trace_id,
        prompt=first(observation, "promptName", "prompt_name"),
        params=settings.stated_settings(
            obj(first(observation, "modelParameters", "model_parameters"))
        ),
        scores={**scores.get(str(trace_id), {}), **scores.get(str(id), {})},
    )


def _row(
    asked: Json, answer: Json, observation: Mapping[str, Json], about: Mapping[str, Json]
) -> Trace | Dropped:
    request = _request(asked, observation)
    if asked is not None and not request.get("messages"):
        return NO_CHAT
    message = obj(answer)
    ending = obj(message.get("response_metadata")).get("finish_reason")
    ending = ending or message.get("finish_reason")
    try:
        before = _as_messages(request.get("messages"))
        answered = _as_messages(_answer(answer, observation.get("output")))
    except Unusable as error:
        return error.dropped
    about = {"params": settings.requested_settings(request), **about}
    return build_trace(before, answered, tools=request.get("tools"), finish_reason=ending, **about)


def _request(asked: Json, observation: Mapping[str, Json]) -> dict[str, Json]:
    """Return the messages and tools in an observation's input."""
    request = {**asked} if isinstance(asked, dict) and "role" not in asked else {"messages": asked}
    messages = request.get("messages")
    messages = [messages] if isinstance(messages, dict) else messages
    request["messages"] = messages
    if isinstance(messages, list):
        request["messages"] = [message for message in messages if not _tool(message)]
        request.setdefault("tools", list(filter(None, map(_tool, messages))) or None)
    offered = obj(first(observation, "toolDefinitions", "tool_definitions"))
    if not request.get("tools") and offered:
        request["tools"] = [{"name": name, **obj(tool)} for name, tool in offered.items()]
    return request


def _tool(message: Json) -> Mapping[str, Json]:
    """Return the tool that a message of LangChain's handler defines, else an empty object."""
    fields = obj(message) if isinstance(message, dict) else {}
    if fields.get("role") != "tool" or "tool_call_id" in fields:
        return {}
    tool = obj(fields.get("content"))
    defined = isinstance(tool.get("function"), dict) or {"name", "parameters"} <= set(tool)
    return tool if defined else {}


def _answer(answer: Json, written: Json) -> Json:
    """Return a message or several unchanged; other JSON is what the model said.

    It is then the text as written, where that is known.
    """
    if all(is_message(each) or _is_item(each) for each in _listed(answer)):
        return answer
    return written if isinstance(written, str) else json_text(answer)


def _listed(given: Json) -> list[Json]:
    return given if isinstance(given, list) else [given] if isinstance(given, dict) else []


def _is_item(each: Json) -> bool:
    return isinstance(each, dict) and each.get("type") in RESPONSE_ITEMS


def _as_messages(given: Json) -> Json:
    """Return items of the Responses API as messages, anything else unchanged."""
    if any(map(_is_item, _listed(given))):
        return responses_api.response_messages(_listed(given))
    return given
