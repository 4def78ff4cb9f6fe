"""What a template writes between a turn's end and the next one: results, and the next header.

It is rendered after a placeholder for the turn, so it depends on nothing that was sampled, and
nothing sampled is encoded again. Left out: the turn itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from offapi.errors import DataError, ModelError

if TYPE_CHECKING:
    from offapi.chat.chat import Chat

Messages = Sequence[Mapping[str, Any]]
_MARK = "placeholder"


class EndlessTurn(DataError):
    """The template ends a turn with none of the ids at which generation stops."""


@dataclass(frozen=True)
class Between:
    """A chat with a placeholder, its text, the id that ends it, and the tokens after that."""

    messages: Messages
    text: str
    end: int
    tokens: tuple[int, ...]


def beginning(messages: Messages) -> list[Mapping[str, Any]]:
    """Return the messages before the first assistant's turn that follows another message."""
    ends = (i for i, each in enumerate(messages) if i and each.get("role") == "assistant")
    return list(messages[: next(ends, len(messages))])


def with_ids(messages: Messages) -> list[Mapping[str, Any]]:
    """Return `messages` with an id and a name for each result of a tool.

    The answer to a call that could not be read has neither, which some templates refuse.
    """
    results = 0
    named: list[Mapping[str, Any]] = []
    for message in messages:
        if message.get("role") == "tool" and not message.get("tool_call_id"):
            results += 1  # ids of nine letters and digits, which Mistral's templates demand
            message = {"name": "unknown", **message, "tool_call_id": f"broken{results:03d}"}
        named.append(message)
    return named


def placeholder(mark: str, turn: Mapping[str, Any], following: Messages) -> dict[str, Any]:
    """Return a turn that `following` may follow: it has a call for each result among them.

    `mark` stands at its end. `turn` says the names of the calls.
    """
    names = {str(each.get("id")): each["function"]["name"] for each in turn.get("tool_calls") or ()}
    arguments = orjson.dumps({"value": mark}).decode()
    calls = []
    for result in following:
        if result.get("role") == "tool":
            name = names.get(str(result["tool_call_id"])) or result.get("name") or "unknown"
            function = {"name": name, "arguments": arguments}
            calls.append({"id": result["tool_call_id"], "type": "function", "function": function})
    if not calls:
        return {"role": "assistant", "content": mark}
    return {"role": "assistant", "content": "", "tool_calls": calls}


def between(
    chat: Chat, id: str, asked: Messages, turn: Mapping[str, Any], following: Messages, tools: Any
) -> Between:
    """Return what stands between `turn`, which follows `asked`, and where the next one begins.

    Raise EndlessTurn where the template ends the placeholder with no id that ends a turn.
    """
    mark, following = _MARK, with_ids(following)
    while any(mark in orjson.dumps(each, default=str).decode() for each in (*asked, *following)):
        mark += "x"
    held = placeholder(mark, turn, following)
    try:
        text = chat.render(id, [*asked, held, *following], tools, generate=True)
    except ModelError:  # some templates write one call in a turn, but any number of results
        held = {**held, "tool_calls": held.get("tool_calls", [])[-1:]}
        text = chat.render(id, [*asked, held, *following], tools, generate=True)
    at = text.rfind(mark)
    if at < 0:
        raise ModelError(
            "the chat template does not write a turn's text or its call.",
            where=chat.template,
            next_step="Use another model.",
        )
    tokens = chat.encode(text[at + len(mark) :])
    end = next((n for n, token in enumerate(tokens) if token in chat.stop_ids), None)
    if end is None:
        what = f"the template does not end a turn with any of the ids {chat.stop_ids}."
        step = "Add the id that ends a turn to eos_token_id in generation_config.json."
        raise EndlessTurn(what, next_step=step)
    return Between([*asked, held, *following], text, tokens[end], tokens[end + 1 :])
