"""Examples for reinforcement fine-tuning: a question, and what its answer is checked against.

OpenAI reserves `messages` and `tools`; the known answer is in whichever other keys the grader
names. What lies under one of the usual names is the known answer, else all other keys together are:
an object with the task's fields, or a text for a task that answers with text. Left out: lists.
"""

from __future__ import annotations

from collections.abc import Mapping

from offapi.data.documents import Document
from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.loose_json import Json, first, ident, json_text, opened
from offapi.data.importers.shared.marks import lost_content
from offapi.data.importers.shared.messages import canonical
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.traces import Message

ANSWERS = (
    *("reference_answer", "reference", "references", "expected", "expected_output", "gold"),
    *("answer", "ground_truth", "target", "label", "labels", "solution", "correct_answer"),
)
OTHERS = frozenset(
    {
        *("messages", "contents", "conversations", "conversation", "tools", "functions", "id"),
        *("response_format", "metadata", "weight", "system", "systemInstruction"),
        *("system_instruction", "parallel_tool_calls", "split", "data_source", "ability"),
    }
)
LOGGED = frozenset(  # keys of a logged call, whose answer lies elsewhere
    {
        *("response", "output", "outputs", "choices", "completion", "result", "request", "usage"),
        *("model", "call_type", "request_id", "status", "error", "created", "object", "prompt"),
    }
)
NO_OBJECT = Dropped(
    "a question whose known answer is not an object (reinforcement fine-tuning)",
    'Write it as a document with gold: {"id", "document", "gold": {FIELD: VALUE}}. The task\'s'
    " fields are the keys of gold.",
)


def question_with_gold(record: Mapping[str, Json], messages: Json) -> Document | Dropped | None:
    """Return a question and its known answer as a document; None where no answer is recorded.

    A logged call is not an example.
    """
    if not LOGGED.isdisjoint(record):
        return reasons.unread(record)
    named = first(record, *ANSWERS)
    rest = {name: value for name, value in record.items() if name not in OTHERS}
    if not rest:
        return None
    gold = opened(named) if named is not None else rest
    if isinstance(gold, bool | int | float):
        gold = json_text(gold)
    if not isinstance(gold, dict | str) or not gold:
        return NO_OBJECT
    chat = canonical(messages)
    lost = lost_content(chat)
    if lost is not None:
        return lost
    text = _asked(chat)
    return Document(ident(record.get("id")), text, gold) if text.strip() else reasons.EMPTY_PROMPT


def _asked(chat: list[Message]) -> str:
    """Return what the user wrote after the last answer; a task has its own instructions."""
    texts: list[str] = []
    for message in chat:
        if message["role"] == "assistant":
            texts.clear()
        elif message["role"] == "user":
            texts.append(message["content"])
    return "\n".join(texts)
