"""Training files for chat models, one example a line: OpenAI's, and the other usual shapes.

    {"messages": [{"role", "content", "tool_calls", "weight"}, ...], "tools": [...]}
    {"conversations": [{"from": "human", "value": "..."}, ...]}                      ShareGPT
    {"systemInstruction"?, "contents": [{"role", "parts": [{"text"}]}, ...]}          Gemini, Vertex
    {"prompt": [messages], "completion": [messages]}                                 TRL

The older `functions` and `function_call` become tools and tool calls. A `weight` next to `messages`
(as Fireworks has it) is kept in the source. Examples for reinforcement fine-tuning end with the
question: they become documents with the known answer. Left out: preference pairs, which have two
answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.documents import Document
from offapi.data.importers.shared import settings
from offapi.data.importers.shared.loose_json import Json, first, opened
from offapi.data.importers.shared.message_shapes import plain_message, role_of
from offapi.data.importers.shared.reading import (
    SYSTEM,
    asked_messages,
    has_messages,
    read_answer,
)
from offapi.data.importers.shared.reasons import (
    BAD_WEIGHT,
    NO_MESSAGES,
    WEIGHTLESS,
    Dropped,
    Unusable,
    unread,
)
from offapi.data.importers.shared.reinforcement import question_with_gold
from offapi.data.importers.shared.trace_or_reason import IN_MESSAGES, build_trace
from offapi.data.traces import Trace

CHATS = ("messages", "conversations", "conversation", "contents")
NEXT_TO_MESSAGES = frozenset(SYSTEM)
PREFERENCES = ("preferred_output", "non_preferred_output", "chosen", "rejected")
PAIR = Dropped(
    "a preference pair (DPO), not a chat",
    "There is no single answer to learn; `offapi` has no recipe for pairs. To learn the preferred"
    " answers, use the generic format with --map input=$.prompt --map output=$.chosen (OpenAI's:"
    " input=$.input, output=$.preferred_output).",
)
UNDESIRED = Dropped("an answer that is marked as undesirable (label false)")
COMPLETION = Dropped(
    "a prompt with its completion, not a chat",
    "Use the generic format with --map input=$.prompt --map output=$.completion.",
)


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Document | Dropped]:
    """Yield the one row in `record`."""
    try:
        yield _row(record)
    except Unusable as error:
        yield error.dropped


def _row(record: Mapping[str, Json]) -> Trace | Document | Dropped:
    weight, answer = record.get("weight"), IN_MESSAGES
    messages = record.get("messages") or opened(first(record, *CHATS))
    if messages is None:
        if any(name in record for name in PREFERENCES):
            return PAIR
        if "prompt" not in record or "completion" not in record:
            return unread(record) if "messages" not in record else NO_MESSAGES
        if not has_messages(record["prompt"]):
            return COMPLETION
        messages, answer = opened(record["prompt"]), read_answer(record["completion"])
    if record.get("label") is False:
        return UNDESIRED
    if isinstance(weight, bool) or not isinstance(weight, int | float | None):
        return BAD_WEIGHT
    if weight == 0:
        return WEIGHTLESS
    tools = first(record, "tools", "functions")
    messages = _with_system(record, messages)
    if answer is IN_MESSAGES and _ends_with_question(messages):
        found = question_with_gold(record, messages)
        if found is not None:
            return found
    params = settings.requested_settings(record)
    return build_trace(
        messages, answer, tools=tools, id=record.get("id"), weight=weight, params=params
    )


def _with_system(record: Mapping[str, Json], messages: Json) -> Json:
    """Return the messages with the system prompt that some shapes keep next to them."""
    if NEXT_TO_MESSAGES.isdisjoint(record) or not isinstance(messages, list):
        return messages
    return asked_messages({"system": first(record, *SYSTEM), "messages": messages})


def _ends_with_question(messages: Json) -> bool:
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") == "assistant":
        return False
    return role_of(plain_message(last)) == "user"
