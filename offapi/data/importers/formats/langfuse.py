"""Langfuse's observations, from the blob export, the API and the web page's download.

The export writes snake_case, the other two camelCase. A generation's input is a list of messages
(or items of the Responses API), an object with `messages` and `tools`, or a plain text. Its output
is a message, items, a whole response, or else what the model said, as `shared.reading` reads it.
LangChain's handler appends the tools' definitions as messages; they are recognised. Scores in the
same object are kept in the source. Left out: Parquet and CSV, other observations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.shared import reasons, settings
from offapi.data.importers.shared.exchange import pair_rows
from offapi.data.importers.shared.loose_json import (
    Json,
    first,
    items,
    known,
    moment,
    obj,
    opened,
)
from offapi.data.importers.shared.message_shapes import is_message
from offapi.data.importers.shared.reading import is_request, read_request
from offapi.data.importers.shared.reasons import Dropped
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
FIELDS = frozenset(  # of a download that leaves the type out
    {
        *(
            "id",
            "input",
            "output",
            "name",
            "metadata",
            "model",
            "usage",
            "level",
            "tags",
            "version",
        ),
        *("traceId", "trace_id", "sessionId", "session_id", "userId", "user_id", "environment"),
        *("startTime", "start_time", "endTime", "end_time", "timestamp", "createdAt", "latency"),
        *("scores", "release", "bookmarked", "public", "traceName", "totalCost", "usageDetails"),
    }
)
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
    if not _is_observation(observation):
        yield reasons.unread(observation)
    elif observation.get("type", "GENERATION") != "GENERATION":
        yield reasons.NOT_A_CALL
    elif observation.get("level") == "ERROR":
        yield reasons.FAILED
    elif asked is None and answer is None:
        yield NO_CONTENT
    else:
        yield from _rows(observation, _about(observation, trace, scores))


def _is_observation(record: Mapping[str, Json]) -> bool:
    """Return whether `record` states its type, or has nothing that no observation has."""
    return "type" in record or ("input" in record and set(record) <= FIELDS)


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


def _rows(observation: Mapping[str, Json], about: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    asked = opened(observation.get("input"))
    request = _request(asked, observation)
    if asked is not None and request is None:
        yield NO_CHAT
        return
    yield from pair_rows(request, observation.get("output"), **about)


def _request(asked: Json, observation: Mapping[str, Json]) -> dict[str, Json] | None:
    """Return an observation's input as a request, with the tools that it or its messages define."""
    if isinstance(asked, dict) and not is_request(asked) and not is_message(asked):
        return None
    request = {**(read_request(asked) or {})}
    messages = request.get("messages")
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
