"""Items of OpenAI's Responses API -> messages. Exact, or not at all.

Dropped: conversations whose beginning the provider keeps, and calls of tools that run there.
"""

from __future__ import annotations

from collections.abc import Mapping

from offapi.data.importers.shared import reasons, settings
from offapi.data.importers.shared.loose_json import Json, first, items, known, obj, text
from offapi.data.importers.shared.reasons import Dropped, Unusable
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import ROLES, Trace

# type of an item -> keys that one of it has
ITEMS = {
    "message": ("content",),
    "function_call": ("arguments",),
    "function_call_output": ("call_id",),
    "reasoning": ("summary", "content"),
    "item_reference": ("id",),
}
REMEMBERED = ("previous_response_id", "conversation", "prompt")


def response_row(
    request: Mapping[str, Json], response: Mapping[str, Json], **about: Json
) -> Trace | Dropped:
    """Return the row in a request and its response. `about`: id, group and more for the source."""
    try:
        if any(side.get(name) for side in (request, response) for name in REMEMBERED):
            raise Unusable(reasons.EARLIER)
        asked = _asked(
            first(request, "instructions") or response.get("instructions"), request.get("input")
        )
        answer = response_messages(items(response.get("output")))
    except Unusable as error:
        return error.dropped
    status, detail = response.get("status"), obj(response.get("incomplete_details")).get("reason")
    return build_trace(
        asked,
        answer,
        tools=first(request, "tools") or response.get("tools"),
        finish_reason=detail if status == "incomplete" and detail else status,
        model=first(response, "model") or request.get("model"),
        usage=response.get("usage"),
        **{"params": settings.requested_settings(request, response), **about},
    )


def is_item(value: Json) -> bool:
    """Return whether `value` is an item of the Responses API."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return False
    kind = value["type"]
    if kind.endswith("_call") and kind not in ITEMS:  # web_search_call and the like
        return "id" in value
    if kind == "reasoning":
        listed = any(isinstance(value.get(name), list) for name in ITEMS[kind])
        return listed or "encrypted_content" in value
    whole = any(name in value for name in ITEMS.get(kind, ()))
    return whole and (kind != "message" or value.get("role") in ROLES)


def _asked(instructions: Json, given: Json) -> list[Json]:
    """Return the messages before the answer. Instructions may be items too."""
    system = (
        [{"role": "system", "content": instructions}]
        if text(instructions)
        else response_messages(items(instructions))
    )
    if isinstance(given, str):
        return [*system, {"role": "user", "content": given}]
    return [*system, *response_messages(items(given))] if given else []


def response_messages(given: list[Json]) -> list[Json]:
    """Return the items as messages.

    What the model wrote between two turns of others is one message, unless it wrote two texts.
    """
    messages: list[Json] = []
    turn: dict[str, Json] | None = None  # the assistant's, unfinished
    for item in given:
        if not isinstance(item, dict):
            raise Unusable(reasons.BAD_MESSAGE)
        kind = item.get("type") or "message"
        own = kind in ("reasoning", "function_call") or item.get("role") == "assistant"
        if not own:
            messages += [turn, _other(item, kind)] if turn else [_other(item, kind)]
            turn = None
            continue
        piece = _own(item, kind)
        if turn is not None and "content" in turn and "content" in piece:
            messages += _without_commentary(turn, piece)
            turn = None
        turn = piece if turn is None else _merged(turn, piece)
    return messages + ([turn] if turn else [])


def _without_commentary(turn: dict[str, Json], following: Mapping[str, Json]) -> list[Json]:
    """Return the turn before another one, unless it is a remark before the final answer."""
    remark = turn.get("phase") == "commentary" and "tool_calls" not in turn
    return [] if remark and following.get("phase") == "final_answer" else [turn]


def _other(item: Mapping[str, Json], kind: Json) -> Json:
    if kind == "message":
        return {"role": item.get("role"), "content": item.get("content")}
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}
    raise Unusable(
        reasons.EARLIER if kind == "item_reference" else reasons.HOSTED_TOOL, str(kind)[:60]
    )


def _own(item: Mapping[str, Json], kind: Json) -> dict[str, Json]:
    if kind == "message":
        return {
            "role": "assistant",
            "content": item.get("content"),
            **known(phase=item.get("phase")),
        }
    if kind == "function_call":
        call = {
            "id": item.get("call_id"),
            "function": {name: item.get(name) for name in ("name", "arguments")},
        }
        return {"role": "assistant", "tool_calls": [call]}
    if kind != "reasoning":
        raise Unusable(reasons.HOSTED_TOOL, str(kind)[:60])
    parts = items(item.get("content")) or items(item.get("summary"))
    texts = [obj(part).get("text") for part in parts]
    return {
        "role": "assistant",
        "reasoning_content": "\n".join(part for part in texts if isinstance(part, str)),
    }


def _merged(turn: Mapping[str, Json], piece: Mapping[str, Json]) -> dict[str, Json]:
    merged = {**turn, **piece}
    if "tool_calls" in turn and "tool_calls" in piece:
        merged["tool_calls"] = turn["tool_calls"] + piece["tool_calls"]
    if "reasoning_content" in turn and "reasoning_content" in piece:
        merged["reasoning_content"] = "\n".join(
            filter(None, (turn["reasoning_content"], piece["reasoning_content"]))
        )
    return merged
