"""Turns that call tools: read from a completion's tokens, and sent in pieces.

The client runs the tools and sends their results, as with OpenAI. Left out: forcing a call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from offapi.chat.chat import Chat
from offapi.chat.tool_format import ToolFormat
from offapi.completions import Completion
from offapi.serve.chat_request import ChatRequest
from offapi.tools import Turn


def read_turns(
    chat: Chat, asked: ChatRequest, completions: Sequence[Completion]
) -> dict[int, Turn]:
    """Return the choices of a request with tools that call one, by their numbers.

    Calls are numbered through the whole chat, so that a template which writes their ids writes
    what it wrote before. A malformed call is text.
    """
    form = ToolFormat.of(chat, asked.tools)
    before = sum(len(message.get("tool_calls", ())) for message in asked.messages)
    read = [form.read(each.tokens, before + 1) for each in completions]
    turns = {index: turn for index, turn in enumerate(read) if turn.calls}
    if asked.parallel_tool_calls:
        return turns
    return {index: replace(turn, calls=turn.calls[:1]) for index, turn in turns.items()}


def deltas(text: str, turn: Turn | None) -> Iterator[Mapping[str, Any]]:
    """Yield the deltas of a streamed answer that was held back: its text, then its calls."""
    text = text if turn is None else turn.text
    if text:
        yield {"content": text}
    if turn is not None:
        calls = turn.message()["tool_calls"]
        yield {"tool_calls": [{"index": at, **call} for at, call in enumerate(calls)]}
