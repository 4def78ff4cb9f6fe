"""Messages in any log's form -> messages in OpenAI's shape, as a Trace holds them.

One reader for all dialects, whose parts have different names: OpenAI's Chat Completions,
Anthropic's blocks, OpenTelemetry's parts, LangChain's calls. The pieces of an answer are joined
directly; the parts of any other message, which its sender wrote as separate blocks, with a line
break. Ignored: encrypted or redacted thinking, annotations, log probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.loose_json import Json, first, json_text, obj, text
from offapi.data.importers.shared.reasons import Dropped, Unusable
from offapi.data.importers.shared.tool_calls import make_call, read_calls, read_result
from offapi.data.traces import ROLES, Message

ROLE_NAMES: Mapping[Json, str] = {
    "model": "assistant",
    "ai": "assistant",
    "human": "user",
    "function": "tool",
}
TEXTS = ("text", "input_text", "output_text")
UNREADABLE = ("redacted_thinking", "compaction")
OTHER: Mapping[str, Dropped] = {
    "image": reasons.IMAGE,
    "image_url": reasons.IMAGE,
    "input_image": reasons.IMAGE,
    "audio": reasons.AUDIO,
    "input_audio": reasons.AUDIO,
    "video": reasons.AUDIO,
    "video_url": reasons.AUDIO,
    "file": reasons.DOCUMENT,
    "input_file": reasons.DOCUMENT,
    "document": reasons.DOCUMENT,
    "search_result": reasons.DOCUMENT,
    "container_upload": reasons.DOCUMENT,
    "refusal": reasons.REFUSED,
    "server_tool_use": reasons.HOSTED_TOOL,
    "mcp_tool_use": reasons.HOSTED_TOOL,
    "server_tool_call": reasons.HOSTED_TOOL,
    "server_tool_call_response": reasons.HOSTED_TOOL,
}


class Piece(NamedTuple):
    """A part of a message: a text, thinking, a tool call, or a tool's result as its own message."""

    kind: Literal["text", "thinking", "call", "result"]
    value: Json


def canonical(messages: Json) -> list[Message]:
    """Return `messages` as a Trace holds them; raise Unusable where that is impossible."""
    if not isinstance(messages, list) or not messages:
        raise Unusable(reasons.NO_MESSAGES)
    read: list[Message] = []
    for message in messages:
        read += [message] if _is_canonical(message) else _read(message)
    return read


def is_message(value: Json) -> bool:
    """Return whether `value` has a role or tool calls, as a message has and other JSON has not."""
    return isinstance(value, dict) and (isinstance(value.get("role"), str) or "tool_calls" in value)


def _is_canonical(message: Json) -> bool:
    """Return whether it is a role and a text and nothing else, as nearly all are."""
    if type(message) is not dict or len(message) != 2 or type(message.get("content")) is not str:
        return False
    return message.get("role") in ROLES


def _read(message: Json) -> list[Message]:
    if not isinstance(message, dict):
        raise Unusable(reasons.BAD_MESSAGE)
    given = first(message, "role", "type")
    role = ROLE_NAMES.get(given, given) if isinstance(given, str) else ""
    if role not in ROLES:
        raise Unusable(reasons.BAD_ROLE, f"role {given!r}"[:60])
    pieces = _pieces(message, role)
    if role == "assistant":
        return [_assistant(message, pieces)]
    results = [piece.value for piece in pieces if piece.kind == "result"]
    if role == "tool" and not results:
        return [
            read_result(
                first(message, "tool_call_id", "tool_use_id"),
                _joined(pieces, "\n"),
                name=message.get("name"),
            )
        ]
    return results if role == "tool" else _in_order(message, role, pieces)


def _pieces(message: Mapping[str, Json], role: str) -> list[Piece]:
    content = first(message, "content", "parts")
    if content is None:
        return []
    if isinstance(content, str):
        return [Piece("text", content)]
    if isinstance(content, list):
        return [piece for part in content for piece in _part(part)]
    if isinstance(content, dict) and "type" in content:
        return _part(content)
    if role == "tool":
        return [Piece("text", json_text(content))]
    raise Unusable(reasons.BAD_MESSAGE, "content is neither a text nor a list of parts")


def _part(part: Json) -> list[Piece]:
    if isinstance(part, str):
        return [Piece("text", part)]
    if not isinstance(part, dict):
        raise Unusable(reasons.BAD_MESSAGE, "a part of the content is not an object")
    kind = part.get("type")
    if kind in TEXTS:
        return [Piece("text", _text(first(part, "text", "content")))]
    if kind in ("thinking", "reasoning"):
        return [
            Piece("thinking", _text(first(part, "thinking", "content", "text", "reasoning") or ""))
        ]
    if kind in ("tool_use", "tool_call", "tool-call"):
        return [Piece("call", make_call(part))]
    if kind in ("tool_result", "tool_call_response"):
        id, content = first(part, "tool_use_id", "id"), first(part, "content", "response", "result")
        return [
            Piece(
                "result",
                read_result(id, _result_text(content), failed=part.get("is_error") is True),
            )
        ]
    if kind in UNREADABLE:
        return []
    if kind in ("blob", "uri"):  # OpenTelemetry names the kind in the modality
        kind = str(part.get("modality"))
    known = OTHER.get(kind) if isinstance(kind, str) else None
    raise Unusable(known or reasons.UNKNOWN_CONTENT)


def _assistant(message: Mapping[str, Json], pieces: list[Piece]) -> Message:
    if any(piece.kind == "result" for piece in pieces):
        raise Unusable(reasons.HOSTED_TOOL)
    if message.get("audio"):
        raise Unusable(reasons.AUDIO)
    content = _joined(pieces, "")
    calls = _called(message) or [piece.value for piece in pieces if piece.kind == "call"]
    if text(message.get("refusal")) and not content and not calls:
        raise Unusable(reasons.REFUSED)
    answer: dict[str, Json] = {
        "role": "assistant",
        "content": content if content or not calls else None,
    }
    thinking = "\n".join(
        piece.value for piece in pieces if piece.kind == "thinking" and piece.value
    )
    thinking = text(message.get("reasoning_content")) or text(message.get("reasoning")) or thinking
    if thinking:
        answer["reasoning_content"] = thinking
    if calls:
        answer["tool_calls"] = calls
    return answer | _weight(message.get("weight")) | _name(message.get("name"))


def _called(message: Mapping[str, Json]) -> list[dict[str, Json]]:
    """Return a message's calls.

    LangChain keeps the calls as they were sent separately; an older form has one, without an id.
    """
    listed = obj(message.get("additional_kwargs")).get("tool_calls") or message.get("tool_calls")
    old = message.get("function_call")
    return read_calls(listed) or ([] if old is None else [make_call(old)])


def _in_order(message: Mapping[str, Json], role: str, pieces: list[Piece]) -> list[Message]:
    """Return a user's message; tools' results within it become messages of their own, in place."""
    messages: list[Message] = []
    texts: list[str] = []
    for piece in [*pieces, None]:
        if piece is not None and piece.kind == "text":
            texts.append(piece.value)
            continue
        if texts or (piece is None and not messages):
            messages.append(
                {"role": role, "content": "\n".join(texts), **_name(message.get("name"))}
            )
            texts = []
        if piece is not None:
            if piece.kind != "result":
                raise Unusable(reasons.BAD_MESSAGE, f"a {role} message contains a {piece.kind}")
            messages.append(piece.value)
    return messages


def _result_text(content: Json) -> str:
    """Return what a tool returned as text: blocks of text joined, anything else as JSON."""
    if content is None:
        return ""
    if isinstance(content, list) and all(
        isinstance(part, dict) and "type" in part for part in content
    ):
        return _joined([piece for part in content for piece in _part(part)], "\n")
    return content if isinstance(content, str) else json_text(content)


def _joined(pieces: list[Piece], between: str) -> str:
    return between.join(piece.value for piece in pieces if piece.kind == "text")


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise Unusable(reasons.BAD_MESSAGE, "a part of text has no text")
    return value


def _name(value: Json) -> dict[str, Json]:
    return {"name": value} if text(value) else {}


def _weight(value: Json) -> dict[str, Json]:
    if value is None:
        return {}
    if isinstance(value, bool) or value not in (0, 1):
        raise Unusable(reasons.BAD_WEIGHT, f"weight {value!r}"[:60])
    return {"weight": int(value)}
