"""Messages in any log's form -> messages in OpenAI's shape, as a Trace holds them.

One reader for all dialects: `message_shapes` knows their messages, `parts` what is in them. The
parts of a message that its sender wrote as separate blocks are joined with a line break. Left out:
what cannot be a message at all, which raises Unusable.
"""

from __future__ import annotations

from collections.abc import Mapping

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.loose_json import Json, first, json_text, obj, opened, text
from offapi.data.importers.shared.message_shapes import plain_message, role_of
from offapi.data.importers.shared.parts import Piece, joined, read_part
from offapi.data.importers.shared.reasons import Unusable
from offapi.data.importers.shared.tool_calls import make_call, read_calls, read_result
from offapi.data.traces import ROLES, Message


def canonical(messages: Json) -> list[Message]:
    """Return `messages` as a Trace holds them; raise Unusable where that is impossible."""
    if not isinstance(messages, list) or not messages:
        raise Unusable(reasons.NO_MESSAGES)
    read: list[Message] = []
    for message in messages:
        read += [message] if _is_canonical(message) else _read(message)
    return read


def _is_canonical(message: Json) -> bool:
    """Return whether it is a role and a text and nothing else, as nearly all are."""
    if type(message) is not dict or len(message) != 2 or type(message.get("content")) is not str:
        return False
    return message.get("role") in ROLES


def _read(message: Json) -> list[Message]:
    if not isinstance(message, dict):
        raise Unusable(reasons.BAD_MESSAGE)
    message = plain_message(message)
    role = role_of(message)
    if not role:
        raise Unusable(reasons.BAD_ROLE, f"role {first(message, 'role', 'type')!r}"[:60])
    pieces = _pieces(message, role)
    if role == "assistant":
        return [_assistant(message, pieces)]
    results = [piece.value for piece in pieces if piece.kind == "result"]
    if role == "tool" and not results:
        return [
            read_result(
                first(message, "tool_call_id", "tool_use_id"),
                joined(pieces, "\n"),
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
        return [piece for part in content for piece in read_part(part)]
    if isinstance(content, dict) and ("type" in content or "parts" in content):
        return _pieces(content, role) if "parts" in content else read_part(content)
    if role == "tool":
        return [Piece("text", json_text(content))]
    raise Unusable(reasons.BAD_MESSAGE, "content is neither a text nor a list of parts")


def _assistant(message: Mapping[str, Json], pieces: list[Piece]) -> Message:
    if any(piece.kind == "result" for piece in pieces):
        raise Unusable(reasons.HOSTED_TOOL)
    if message.get("audio"):
        raise Unusable(reasons.AUDIO)
    content = _answer_text(pieces)
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


def _answer_text(pieces: list[Piece]) -> str:
    """Return what an answer says, without commentary where the final answer is marked.

    Texts that citations cut apart are joined directly, as are those that make JSON together; any
    other two that would run into each other are joined with a line break.
    """
    texts = [piece for piece in pieces if piece.kind == "text"]
    final = [piece for piece in texts if piece.phase != "commentary"]
    texts = final or texts
    direct = joined(texts, "")
    if len(texts) < 2 or not isinstance(opened(direct), str):
        return direct
    answer, before = "", texts[0]
    for piece in texts:
        apart = answer[-1:].isspace() or piece.value[:1].isspace() or not (answer and piece.value)
        answer += piece.value if apart or piece.cited or before.cited else "\n" + piece.value
        before = piece
    return answer


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


def _name(value: Json) -> dict[str, Json]:
    return {"name": value} if text(value) else {}


def _weight(value: Json) -> dict[str, Json]:
    if value is None:
        return {}
    if isinstance(value, bool) or value not in (0, 1):
        raise Unusable(reasons.BAD_WEIGHT, f"weight {value!r}"[:60])
    return {"weight": int(value)}
