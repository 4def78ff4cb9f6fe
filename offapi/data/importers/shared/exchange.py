"""A request and its response, of whichever API, as rows. The response's shape decides.

Chat Completions, Responses, Messages, Gemini, Bedrock's Converse, Ollama, LangChain's results; or
messages and a text, where a log keeps no more. Left out: streamed chunks, embeddings, text
completions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.shared import reasons, responses_api, settings
from offapi.data.importers.shared.chat_completions import choice_rows
from offapi.data.importers.shared.loose_json import Json, first, items, known, moment, obj, opened
from offapi.data.importers.shared.messages_api import message_row
from offapi.data.importers.shared.other_apis import ApiAnswer, answers_in
from offapi.data.importers.shared.reading import (
    ASKED,
    STREAMED,
    asked_messages,
    is_choices,
    is_response,
    is_stream,
    read_answer,
    read_request,
    refuse_history,
)
from offapi.data.importers.shared.reasons import Dropped, Unusable
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace

FAILURES = ("failure", "failed", "error")
ERRORS = ("error", "error_str", "exception", "error_message")
OTHER_OBJECTS = ("embedding", "list", "image", "moderation")
TOOLS = ("tools", "functions", "toolConfig")


def exchange(
    request: Mapping[str, Json], response: Mapping[str, Json], **about: Json
) -> Iterator[Trace | Dropped]:
    """Yield the rows in a request and its response. `about`: id, group and more for the source."""
    about["ts"] = about.get("ts") or moment(first(response, "created", "created_at"))
    about["id"] = about.get("id") or response.get("id")
    about["params"] = about.get("params") or settings.requested_settings(request, response)
    try:
        if response.get("error") or response.get("status_code") not in (None, 200):
            yield reasons.FAILED
        elif response.get("type") in STREAMED or str(response.get("object")).endswith(".chunk"):
            yield reasons.STREAMED
        elif items(response.get("choices")):
            yield from choice_rows(request, response, **about)
        elif isinstance(response.get("output"), list):
            yield responses_api.response_row(request, response, **about)
        elif answers := answers_in(response):
            for answer in answers:
                yield _row(request, response, answer, about)
        elif response.get("object") in OTHER_OBJECTS:
            yield reasons.NOT_A_CALL
        elif response.get("type") == "message" or "content" in response:
            yield message_row(request, response, **about)
        else:
            known = any(isinstance(request.get(name), list) for name in ASKED)
            yield reasons.NO_ANSWER if known else reasons.unread(response)
    except Unusable as error:
        yield error.dropped


def pair_rows(
    asked: Json, said: Json, *, tools: Json = None, ending: Json = None, **about: Json
) -> Iterator[Trace | Dropped]:
    """Yield the rows in a question and its answer, whatever JSON they were recorded as."""
    try:
        request, content = read_request(asked) or {}, opened(said)
        if is_stream(content):
            yield reasons.STREAMED
            return
        about["params"] = about.get("params") or settings.requested_settings(request)
        content = {"choices": content} if is_choices(content) else content
        if is_response(content):
            model, usage = about.pop("model", None), about.pop("usage", None)
            offered = known(tools=tools)
            response = {**known(model=model, usage=usage), **obj(content)}
            yield from exchange({**offered, **request}, response, **about)
            return
        messages = asked_messages(request)
        yield build_trace(
            messages,
            refuse_history(messages or [], read_answer(said)),
            tools=tools or first(request, *TOOLS),
            finish_reason=ending or _ending(content),
            **about,
        )
    except Unusable as error:
        yield error.dropped


def call_failed(record: Mapping[str, Json]) -> bool:
    """Return whether a log's record says that its call failed."""
    if str(record.get("status")).lower() in FAILURES or record.get("level") == "ERROR":
        return True
    return any(record.get(name) for name in ERRORS)


def is_cache_hit(record: Mapping[str, Json]) -> bool:
    """Return whether a log's record says that its answer was not made for its request."""
    return str(record.get("cache_hit")).lower() == "true"


def _row(
    request: Mapping[str, Json],
    response: Mapping[str, Json],
    answer: ApiAnswer,
    about: Mapping[str, Json],
) -> Trace | Dropped:
    return build_trace(
        asked_messages(request),
        answer.message,
        tools=first(request, *TOOLS),
        finish_reason=answer.ending,
        model=first(response, "model", "modelVersion") or request.get("model"),
        usage=first(response, "usage", "usageMetadata"),
        **about,
    )


def _ending(content: Json) -> Json:
    """Return why a message ended, where it says so itself."""
    message = obj(content[-1] if isinstance(content, list) and content else content)
    return obj(message.get("response_metadata")).get("finish_reason") or message.get(
        "finish_reason"
    )
