"""Where a model's span keeps its messages: in the names of every instrumentation known here.

The conventions' own attributes and events, of several versions; LangSmith's and MLflow's objects,
the Vercel AI SDK's `ai.*`, Logfire's request and response, Pydantic AI's `events`, the blocks of
Strands. Left out: spans of agents and tools.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from offapi.data.importers.shared.flat_keys import numbered_array
from offapi.data.importers.shared.loose_json import Json, first, items, known, obj, opened
from offapi.data.importers.shared.message_shapes import is_block
from offapi.data.importers.shared.otlp import Span
from offapi.data.importers.shared.reasons import CUT_SHORT, Unusable

ROLES = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}
LISTS = ("gen_ai.input.messages", "gen_ai.output.messages")
PAIRS = (  # of attributes that hold a request or a question, and a response or an answer
    ("gen_ai.prompt", "gen_ai.completion"),
    ("request_data", "response_data"),  # Logfire
    ("mlflow.spanInputs", "mlflow.spanOutputs"),
    ("langfuse.observation.input", "langfuse.observation.output"),
    ("input.value", "output.value"),
    ("llm.prompts", "llm.responses"),  # Langtrace
)
LOGFIRE = {"message", "usage", "combined_chunk_content", "chunk_count"}
VERCEL_ANSWERS = ("ai.response.text", "ai.response.object", "ai.result.text", "ai.result.object")
CONTENT = re.compile(
    r"prompt|completion|message|input|output|request_data|response|content|events", re.IGNORECASE
)
SHORTEST_LIMIT = 100  # characters of an attribute
LEAST = 12  # characters of an attribute that seems to be content
NO_CONTENT_KEYS = re.compile(
    r"\.request\.|format|usage|token|finish_reason|\.id$|model|mime|\.type$|operation|\.kind$|count|latency|timestamp"
    r"|settings|temperature|system$|name$|provider",
    re.IGNORECASE,
)
JSON_BEGINS = re.compile(r'\s*(\[\s*)?\{\s*"')


class SpanContent(NamedTuple):
    """Messages and answers of a span; or one question and answer that may be any JSON."""

    asked: Sequence[Json] = ()
    answers: Sequence[Json] = ()
    pair: tuple[Json, Json] | None = None
    tools: Json = None


def recorded(span: Span, attributes: Mapping[str, Json]) -> SpanContent | None:
    """Return what a span holds, None for nothing; raise Unusable where it was cut short."""
    for name in (*LISTS, *chain.from_iterable(PAIRS), "events"):
        refuse_cut(attributes.get(name))
    refuse_equal_lengths(attributes)
    return (
        _lists(attributes)
        or _vercel(attributes)
        or _numbered(attributes)
        or _pair(attributes)
        or _events(_listed_events(attributes))
        or _events(span.events)
    )


def refuse_cut(value: Json) -> None:
    """Raise Unusable where a text begins as JSON and is none, as it is after a length limit."""
    if isinstance(value, str) and JSON_BEGINS.match(value) and isinstance(opened(value), str):
        raise Unusable(CUT_SHORT)


def refuse_equal_lengths(attributes: Mapping[str, Json]) -> None:
    """Raise Unusable where two texts end at one limit: the longest are equally and roundly long.

    A text that does not have to be JSON does not show otherwise that it was cut.
    """
    texts = {value for value in attributes.values() if isinstance(value, str)}
    longest = max(map(len, texts), default=0)
    rounded = longest % 64 == 0 or longest % 100 == 0 or (longest + 1) % 256 == 0
    if longest >= SHORTEST_LIMIT and rounded and sum(len(text) == longest for text in texts) > 1:
        raise Unusable(CUT_SHORT)


def content_keys(attributes: Mapping[str, Json]) -> list[str]:
    """Return the keys of attributes that seem to hold what was asked or answered."""
    return [key for key, value in attributes.items() if _seems_content(key, value)]


def _seems_content(key: str, value: Json) -> bool:
    """Return whether an attribute is named as content is, and long enough to be some."""
    if NO_CONTENT_KEYS.search(key) or not CONTENT.search(key):
        return False
    return len(value) >= LEAST if isinstance(value, str) else isinstance(value, list | dict)


def _lists(attributes: Mapping[str, Json]) -> SpanContent | None:
    asked, answers = (items(attributes.get(name)) for name in LISTS)
    return SpanContent(asked, answers) if asked or answers else None


def _vercel(attributes: Mapping[str, Json]) -> SpanContent | None:
    """Return what a span of the Vercel AI SDK holds."""
    given, prompt = attributes.get("ai.prompt.messages"), obj(attributes.get("ai.prompt"))
    refuse_cut(given)
    refuse_cut(attributes.get("ai.prompt"))
    calls = items(first(attributes, "ai.response.toolCalls", "ai.result.toolCalls"))
    said = first(attributes, *VERCEL_ANSWERS)
    asked = items(given) or items(prompt.get("messages"))
    if not asked and prompt.get("prompt"):
        asked = [{"role": "user", "content": prompt["prompt"]}]
    if not asked and said is None and not calls:
        return None
    if prompt.get("system"):
        asked = [{"role": "system", "content": prompt["system"]}, *asked]
    answer = known(role="assistant", content=said, tool_calls=calls)
    tools = [opened(tool) for tool in items(attributes.get("ai.prompt.tools"))]
    return SpanContent(asked, [answer] if said is not None or calls else [], tools=tools)


def _numbered(attributes: Mapping[str, Json]) -> SpanContent | None:
    arrays = [numbered_array(attributes, name) for name in PAIRS[0]]
    asked, answers = (list(map(_in_blocks, array)) for array in arrays)
    lists = [opened(attributes.get(name)) for name in PAIRS[0]]
    if any(isinstance(each, dict) for each in lists):  # an object is a pair's side
        return None
    messages = all(isinstance(each, dict) for each in (*asked, *answers))
    return SpanContent(asked, answers) if messages and (asked or answers) else None


def _in_blocks(message: Json) -> Json:
    """Return a message with its blocks as blocks, where they were written as a text."""
    content = message.get("content") if isinstance(message, dict) else None
    blocks = items(content) if isinstance(content, str) else []
    if blocks and all(map(_is_part, blocks)):
        return {**message, "content": blocks}
    return message


def _is_part(block: Json) -> bool:
    return is_block(block) or (isinstance(block, dict) and len(block) == 1 and _untyped(block))


def _untyped(block: Mapping[str, Json]) -> bool:
    """Return whether a block is one of Bedrock's Converse, which Strands logs."""
    (kind,) = block
    value = block[kind]
    return isinstance(value, str) if kind == "text" else kind in ("toolUse", "toolResult")


def _pair(attributes: Mapping[str, Json]) -> SpanContent | None:
    for asks, says in PAIRS:
        asked, said = attributes.get(asks), attributes.get(says)
        if asked is not None or said is not None:
            response = opened(said)
            if isinstance(response, dict) and set(response) <= LOGFIRE:
                said = first(response, "message", "combined_chunk_content")
            tools = opened(attributes.get("mlflow.chat.tools"))
            return SpanContent(pair=(asked, said), tools=tools)
    return None


def _listed_events(attributes: Mapping[str, Json]) -> list[tuple[str, Mapping[str, Json]]]:
    """Return the events that Pydantic AI lists in an attribute."""
    listed = map(obj, items(attributes.get("events")))
    return [(str(event.get("event.name")), event) for event in listed]


def _events(events: Sequence[tuple[str, Mapping[str, Json]]]) -> SpanContent | None:
    """Return the messages in a span's events, one for each.

    Their body is in an attribute, as JSON text, or is the attributes.
    """
    asked: list[Json] = []
    answers: list[Json] = []
    for name, attributes in events:
        for value in attributes.values():
            refuse_cut(value)
        body = obj(attributes.get("gen_ai.event.content")) or attributes
        if name in ROLES:
            role = body.get("role") or ROLES[name]
            asked.append(_in_blocks({"tool_call_id": body.get("id"), **body, "role": role}))
        elif name == "gen_ai.choice":
            answers.append(_choice(body))
        elif name == "gen_ai.content.prompt":
            asked += items(attributes.get("gen_ai.prompt"))
        elif name == "gen_ai.content.completion":
            answers += items(attributes.get("gen_ai.completion"))
    return SpanContent(asked, answers) if asked or answers else None


def _choice(body: Mapping[str, Json]) -> Json:
    """Return the message in a choice: an object, blocks as JSON text, or a text."""
    message, ending = opened(body.get("message")), body.get("finish_reason")
    if isinstance(message, list) and message and all(map(_is_part, message)):
        message = {"content": message}
    elif not isinstance(message, dict) or not {"role", "content", "tool_calls"} & set(message):
        message = {"content": body.get("message", body.get("content"))}
    return {**_in_blocks(message), "finish_reason": ending}
