"""Tool calls and their results in OpenAI's shape.

Left out: custom tools, whose input is not JSON.
"""

from __future__ import annotations

from collections.abc import Sequence

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.loose_json import Json, first, ident, json_text, text
from offapi.data.importers.shared.reasons import Unusable
from offapi.data.traces import Message


def read_calls(listed: Json) -> list[dict[str, Json]]:
    """Return the calls in a message's `tool_calls`."""
    if listed is None:
        return []
    if not isinstance(listed, list):
        raise Unusable(reasons.BAD_CALL)
    return [make_call(each) for each in listed]


def make_call(call: Json) -> dict[str, Json]:
    """Return one call. Arguments that are text stay unchanged, others become JSON text."""
    if not isinstance(call, dict):
        raise Unusable(reasons.BAD_CALL)
    if call.get("type") == "custom":
        raise Unusable(reasons.HOSTED_TOOL)
    inner = call["function"] if isinstance(call.get("function"), dict) else call
    name = first(inner, "name", "toolName")
    arguments = first(inner, "arguments", "args", "input")
    if not isinstance(name, str) or not name:
        raise Unusable(reasons.BAD_CALL)
    if not isinstance(arguments, str):
        arguments = "{}" if arguments is None else json_text(arguments)
    function = {"name": name, "arguments": arguments}
    return {
        **_field(
            "id", ident(first(call, "id", "call_id", "tool_call_id", "toolCallId", "toolUseId"))
        ),
        "type": "function",
        "function": function,
    }


def read_result(id: Json, content: str, *, name: Json = None, failed: bool = False) -> Message:
    """Return a tool's result as a message.

    `failed`: Anthropic's `is_error`, which has no equivalent at OpenAI, is kept.
    """
    message = {
        "role": "tool",
        **_field("tool_call_id", ident(id)),
        **_field("name", text(name)),
        "content": content,
    }
    return {**message, **_field("is_error", failed)}


def complete_calls(asked: Sequence[Message], answered: Sequence[Message]) -> bool:
    """Return whether every call has its result before the model's next turn.

    Calls of the answer itself may still await theirs.
    """
    # Ids of calls without a result so far, and whether they must get one.
    awaited: list[tuple[str, bool]] = []
    before = ""
    for i, message in enumerate([*asked, *answered]):
        if message["role"] == "assistant":
            if awaited and before != "assistant":
                return False
            awaited += [
                (call.get("id", ""), i < len(asked)) for call in message.get("tool_calls", ())
            ]
        elif message["role"] == "tool":
            _settle(awaited, message.get("tool_call_id", ""))
        before = message["role"]
    return not any(must for _, must in awaited)


def _settle(awaited: list[tuple[str, bool]], id: str) -> None:
    """Remove the call that a result answers.

    It is the one with the result's id, else the first where one of them has no id.
    """
    same = [i for i, (other, _) in enumerate(awaited) if other == id]
    unnamed = [i for i, (other, _) in enumerate(awaited) if not other or not id]
    if same or unnamed:
        del awaited[(same or unnamed)[0]]


def _field(name: str, value: Json) -> dict[str, Json]:
    return {name: value} if value else {}
