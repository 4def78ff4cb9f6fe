"""What was asked and answered, in a place that may hold any JSON: one reading for all formats.

Messages, parts of one, a whole request or response of an API are read as what they are; a text is
a text; other JSON is what was written. What looks like messages and cannot be read is a reason,
never text.
"""

from __future__ import annotations

from collections.abc import Mapping

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.loose_json import Json, first, json_text, obj, opened
from offapi.data.importers.shared.message_shapes import (
    LANGCHAIN,
    is_block,
    is_message,
    plain_message,
    refuse_odd_messages,
)
from offapi.data.importers.shared.reasons import Unusable
from offapi.data.importers.shared.responses_api import is_item, response_messages

ASKED = ("messages", "contents", "input", "prompt")
SYSTEM = ("system", "systemInstruction", "system_instruction")
CHATS = ("messages", "contents")
STREAMED = ("message_start", "content_block_delta", "message_delta")
PIECES = (*STREAMED, "content_block_start", "content_block_stop", "message_stop", "ping")
MESSAGE = ("stop_reason", "role", "model", "usage")  # a response of the Messages API has one


def read_request(asked: Json) -> Mapping[str, Json] | None:
    """Return what was asked as a request with messages; None where nothing was.

    An object that is neither a request nor a message was asked as JSON text.
    """
    content = opened(asked)
    if is_request(content):
        return obj(content)
    question = read_question(asked)
    return None if question is None else {"messages": question}


def is_request(content: Json) -> bool:
    """Return whether `content` is a request to an API: messages, or an input for a model."""
    if not isinstance(content, dict) or "role" in content:
        return False
    chat = any(isinstance(opened(content.get(name)), list | dict) for name in CHATS)
    return chat or ("model" in content and any(name in content for name in ASKED))


def has_messages(given: Json) -> bool:
    """Return whether what was asked is a list in which a role is stated."""
    content = opened(given)
    return isinstance(content, list) and any(map(_has_role, content))


def asked_messages(request: Mapping[str, Json]) -> list[Json] | None:
    """Return the messages of a request, with its system prompt before them."""
    messages = read_question(first(request, *ASKED))
    system = first(request, *SYSTEM)
    if not system or messages is None:
        return messages
    return [{"role": "system", "content": system}, *messages]


def read_question(given: Json) -> list[Json] | None:
    """Return what was asked as messages; None where nothing was."""
    content = opened(given)
    if content in (None, [], {}):
        return None
    if isinstance(content, list):
        if len(content) == 1 and isinstance(content[0], list | str):  # a batch of one
            return read_question(content[0])
        if any(map(_has_role, content)):
            return content
        if any(map(is_item, content)):
            return response_messages(content)
    chat = _as_messages(content, "user")
    if chat is not None:
        return chat
    return [{"role": "user", "content": given if isinstance(given, str) else json_text(content)}]


def read_answer(given: Json) -> Json:
    """Return what was answered: messages, or the text as it was written; None for nothing."""
    content = opened(given)
    if content is None:
        return None
    chat = _as_messages(content, "assistant")
    if chat is not None:
        return chat
    return given if isinstance(given, str) else json_text(content)


def is_response(content: Json) -> bool:
    """Return whether `content` is a response of an API, and not JSON that a model answered."""
    if not isinstance(content, dict):
        return False
    if content.get("object") in ("chat.completion", "response", "chat.completion.chunk"):
        return True
    if content.get("type") in STREAMED:
        return True
    if content.get("type") == "message" and "content" in content:
        return any(name in content for name in MESSAGE)
    return _holds_answers(content)


def _holds_answers(content: Mapping[str, Json]) -> bool:
    """Return whether an object lists answers as an API's response does."""
    choices, output = content.get("choices"), content.get("output")
    if isinstance(choices, list) and choices:
        return all(_is_choice(choice) for choice in choices)
    if isinstance(output, list) and output:
        return all(map(is_item, output))
    if isinstance(output, dict):
        return is_message(output.get("message"))
    if isinstance(content.get("candidates"), list):
        return any("parts" in obj(obj(each).get("content")) for each in content["candidates"])
    if isinstance(content.get("generations"), list):
        return True
    error = content.get("error")
    if isinstance(error, dict):
        return "message" in error and ("type" in error or "code" in error)
    return is_message(content.get("message"))


def is_stream(content: Json) -> bool:
    """Return whether `content` lists the pieces of a streamed response."""
    if not isinstance(content, list) or not content:
        return False
    return all(map(_is_piece, content))


def _is_piece(each: Json) -> bool:
    if not isinstance(each, dict):
        return False
    return (
        each.get("type") in PIECES
        or "candidates" in each
        or str(each.get("object")).endswith(".chunk")
    )


def unwrapped(side: Json) -> Json:
    """Return what lies under the only key of an object that no API would write.

    For logs that wrap whatever went into a call, and came out, into an object.
    """
    content = opened(side)
    if not isinstance(content, dict) or len(content) != 1 or is_message(content):
        return side
    return side if is_request(content) or is_response(content) else next(iter(content.values()))


def is_choices(content: Json) -> bool:
    """Return whether `content` is the list of choices of a response."""
    return isinstance(content, list) and bool(content) and all(map(_is_choice, content))


def _is_choice(choice: Json) -> bool:
    if not isinstance(choice, dict):
        return False
    said = any(isinstance(choice.get(name), dict) for name in ("message", "delta"))
    return said or ("text" in choice and ("finish_reason" in choice or "index" in choice))


def _as_messages(content: Json, role: str) -> list[Json] | None:
    """Return the messages that `content` is, None where it is other JSON or a text.

    Parts without a message are one of `role`, which is also that of a message without one.
    """
    if isinstance(content, dict):
        inner = content.get("messages", next(iter(content.values()), None))
        if "messages" in content or len(content) == 1:
            chat = _as_messages(inner, role) if isinstance(inner, dict | list) else None
            if chat is not None:
                return chat
        values = [content]
    elif isinstance(content, list) and content:
        if len(content) == 1 and isinstance(content[0], list):
            return _as_messages(content[0], role)
        values = content
    else:
        return None
    if all(map(is_message, values)):
        return [value if _has_role(value) else {"role": role, **value} for value in values]
    if all(map(is_item, values)):
        return response_messages(values)
    if all(map(is_block, values)):
        return [{"role": role, "content": values}]
    refuse_odd_messages(values)
    return None


def _has_role(value: Json) -> bool:
    """Return whether `value` states a role; in a question that makes it a message."""
    if not isinstance(value, dict):
        return False
    message = plain_message(value)
    return isinstance(message.get("role"), str) or any(name in message for name in LANGCHAIN)


def refuse_history(asked: list[Json], answered: Json) -> Json:
    """Return an answer without the messages that it repeats from the question.

    Raise Unusable where it holds others of the user's.
    """
    if not isinstance(answered, list) or len(answered) < 2:
        return answered
    if answered[: len(asked)] == asked:
        return answered[len(asked) :]
    if any(obj(message).get("role") in ("user", "system") for message in answered):
        raise Unusable(reasons.NOT_ONE_ANSWER)
    return answered
