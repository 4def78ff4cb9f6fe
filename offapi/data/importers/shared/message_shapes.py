"""What a message looks like, so that a user's own JSON is not taken for one, nor one for text.

A message is recorded in several spellings: OpenAI's, LangChain's (as it is, or serialized),
ShareGPT's. In a place that may hold any JSON, only what has a known role, content and no foreign
key is a message; what comes close to one is a reason, never text.
"""

from __future__ import annotations

from collections.abc import Mapping

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.loose_json import Json, first, obj, opened
from offapi.data.importers.shared.reasons import Unusable
from offapi.data.traces import ROLES

ROLE_NAMES: Mapping[Json, str] = {
    **dict.fromkeys(("model", "ai", "gpt", "chatgpt", "bot", "chatbot", "bard"), "assistant"),
    **dict.fromkeys(("aimessagechunk", "function_call"), "assistant"),
    **dict.fromkeys(("human", "humanmessagechunk"), "user"),
    **dict.fromkeys(("function", "observation", "tool_response"), "tool"),
}
SAID = ("content", "parts", "tool_calls", "function_call", "refusal", "reasoning_content")
LANGCHAIN = ("additional_kwargs", "response_metadata", "usage_metadata", "invalid_tool_calls")
FIELDS = frozenset(
    {
        *("role", "type", "id", "name", "status", "object", "index", "phase", "weight", *SAID),
        *("tool_call_id", "audio", "annotations", "images", "parsed", "prefix", "logprobs"),
        *("reasoning", "reasoning_details", "thinking", "thinking_blocks", "cache_control"),
        *(
            "finish_reason",
            "stop_reason",
            "stop_sequence",
            "usage",
            "model",
            "recipient",
            "end_turn",
        ),
        *(
            "provider_specific_fields",
            "metadata",
            "created_at",
            "timestamp",
            "example",
            "toolCalls",
        ),
        *("artifact", "chunk_position", "lc_kwargs", "citations", "channel", *LANGCHAIN),
    }
)
BLOCKS: Mapping[str, tuple[str, ...]] = {  # type -> a key that such a block has
    **dict.fromkeys(("text", "input_text", "output_text"), ("text", "content")),
    "thinking": ("thinking",),
    "reasoning": ("text", "content", "reasoning", "summary"),
    "tool_use": ("input",),
    "tool_call": ("arguments", "args"),
    "tool-call": ("toolName",),
    "tool_result": ("tool_use_id",),
    "tool_call_response": ("response", "result"),
    "tool-result": ("toolCallId",),
    **dict.fromkeys(("image", "document", "search_result"), ("source", "image", "content")),
    "image_url": ("image_url",),
    "input_image": ("image_url", "file_id"),
    "file": ("file", "mediaType", "mimeType", "data"),
    "input_audio": ("input_audio",),
    "redacted_thinking": ("data",),
}
TEXT_BLOCK = frozenset(
    {
        *("type", "text", "content", "annotations", "citations", "cache_control", "phase", "index"),
        *("id", "logprobs", "extras", "providerOptions", "providerMetadata"),
    }
)


def plain_message(message: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return a message with its role and content in their usual places."""
    kwargs, data = message.get("kwargs"), message.get("data")
    if _serialized(message) and isinstance(kwargs, dict):
        name = str((message["id"] or [""])[-1]).removesuffix("Chunk").removesuffix("Message")
        return {**kwargs, "role": kwargs.get("role") or name.lower()}
    if isinstance(data, dict) and "content" in data and isinstance(message.get("type"), str):
        return {**data, "role": data.get("role") or message["type"]}
    if "from" in message and "value" in message:
        return _of_sharegpt(message)
    if "author" in message and "role" not in message:
        return {**message, "role": message["author"]}
    return message


def role_of(message: Mapping[str, Json]) -> str:
    """Return a message's role as one of ROLES, or "" where it is another."""
    given = first(message, "role", "type")
    named = given.lower() if isinstance(given, str) else ""
    role = ROLE_NAMES.get(named, named)
    return role if role in ROLES else ""


def is_message(value: Json) -> bool:
    """Return whether `value` is a message: a known role, something said, no foreign key."""
    if not _near_message(value):
        return False
    return _serialized(value) or not foreign_keys(value)


def foreign_keys(value: Mapping[str, Json]) -> list[str]:
    """Return the keys of something near a message that no message has."""
    return [name for name in plain_message(value) if name not in FIELDS]


def refuse_odd_messages(values: list[Json]) -> None:
    """Raise Unusable where one of `values` is near a message, or a serialized object."""
    for value in values:
        if _near_message(value):
            keys = ", ".join(foreign_keys(value)[:5]) or "messages mixed with other values"
            raise Unusable(reasons.ODD_MESSAGE, keys)
        if _serialized(value):
            raise Unusable(reasons.ODD_MESSAGE, "a serialized object that is not a message")


def is_block(value: Json) -> bool:
    """Return whether `value` is a part of a message's content, which states its type."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return False
    hallmarks = BLOCKS.get(value["type"], ())
    if not any(name in value for name in hallmarks):
        return False
    return hallmarks != BLOCKS["text"] or set(value) <= TEXT_BLOCK


def _near_message(value: Json) -> bool:
    if not isinstance(value, dict):
        return False
    message = plain_message(value)
    if not isinstance(message.get("role"), str):
        if isinstance(message.get("tool_calls"), list) and message["tool_calls"]:
            return all(obj(call).get("function") for call in message["tool_calls"])
        if not any(name in message for name in LANGCHAIN):
            return False
    return bool(role_of(message)) and any(name in message for name in SAID)


def _serialized(value: Json) -> bool:
    """Return whether `value` is one of LangChain's objects, serialized."""
    if not isinstance(value, dict) or "lc" not in value:
        return False
    return isinstance(value.get("id"), list) and value.get("type") == "constructor"


def _of_sharegpt(message: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return a message of ShareGPT's shape; a call is JSON text, as LLaMA-Factory writes it."""
    role, value = message["from"], message["value"]
    rest = {name: message[name] for name in message if name not in ("from", "value")}
    if role != "function_call":
        return {**rest, "role": role, "content": value}
    calls = opened(value)
    return {**rest, "role": role, "tool_calls": calls if isinstance(calls, list) else [calls]}
