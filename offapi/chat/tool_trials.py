"""What a chat template does with tools, found by trying: short chats that are rendered at load.

No list of models' names says it. Left out: reading what a model says (`offapi.chat.tool_format`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from offapi.chat.bare_calls import BareCalls
from offapi.chat.channel_calls import ChannelCalls
from offapi.chat.found_calls import CallReader
from offapi.chat.gemma_calls import FUNCTION_GEMMA, GEMMA_4
from offapi.chat.messages import with_argument_objects
from offapi.chat.mistral_calls import MistralCalls
from offapi.chat.parameter_calls import ParameterCalls
from offapi.chat.python_calls import PythonCalls
from offapi.chat.tagged_calls import TaggedCalls
from offapi.chat.written import unwritten_call, unwritten_tool
from offapi.errors import OffapiError

if TYPE_CHECKING:
    from offapi.chat.chat import Chat

FALLBACK = "fallback"
READERS: tuple[CallReader, ...] = (
    TaggedCalls(),
    ParameterCalls(),
    MistralCalls(),
    GEMMA_4,
    FUNCTION_GEMMA,
    ChannelCalls(),
    PythonCalls(),
    BareCalls(),
)

ASKED = {"role": "user", "content": "Where is it?"}
_PROPERTIES = {
    "place": {"type": "string", "description": "Where."},
    "limit": {"type": "integer", "description": "How many."},
    "within": {"type": "object", "description": "Bounds.", "properties": {}},
}
_PARAMETERS = {"type": "object", "properties": _PROPERTIES, "required": ["place"]}
_FUNCTION = {"name": "find_place", "description": "Find it.", "parameters": _PARAMETERS}
TOOLS: tuple[Mapping[str, Any], ...] = ({"type": "function", "function": _FUNCTION},)
ARGUMENTS: tuple[Mapping[str, Any], ...] = (
    {"place": 'Zürich "東"', "limit": 3, "within": {"km": [1, 2.5], "open": True}},
    {"place": "2 {b}, c"},
)


def calling(arguments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a turn that calls the trial's tool once with each of `arguments`."""
    calls = [
        {
            "id": f"trial{n:04d}",  # of nine characters, which Mistral's templates demand
            "type": "function",
            "function": {
                "name": _FUNCTION["name"],
                "arguments": json.dumps(value, ensure_ascii=False),
            },
        }
        for n, value in enumerate(arguments)
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


_ANSWER = {"role": "assistant", "content": "There."}
_CALLING = calling(ARGUMENTS[:1])
_THOUGHT = {"reasoning_content": "Let me see."}
_FOUND = {"role": "tool", "tool_call_id": "trial0000", "name": _FUNCTION["name"], "content": "7"}
_TURNS = (_ANSWER, _CALLING, {**_ANSWER, **_THOUGHT}, {**_CALLING, **_THOUGHT})
_LATER = ((ASKED,), (_FOUND,), (_FOUND, _ANSWER, ASKED))


def writes_tools(chat: Chat) -> bool:
    """Return whether the template writes the tools that it is given."""
    try:
        text = chat.templated("", (ASKED,), TOOLS, generate=True)
    except OffapiError:
        return False
    return not unwritten_tool(TOOLS, text)


def writes_calls(chat: Chat) -> bool:
    """Return whether the template writes an assistant's call, with its arguments."""
    turn = calling(ARGUMENTS[:1])
    try:
        text = chat.templated("", (ASKED, turn), None, generate=False)
    except OffapiError:
        return False
    return not unwritten_call(with_argument_objects("", turn), text, lambda value: value)


@dataclass(frozen=True)
class ToolHabits:
    """What a template does with calls: who reads them (None: no reader here), and how many.

    `rewrites` says whether a turn is written otherwise once a later one follows.
    """

    reader: CallReader | None
    several: bool
    rewrites: bool


def habits_of(chat: Chat) -> ToolHabits:
    """Return what the template of `chat` does, tried."""
    found = _reader_of(chat) if chat.writes_tools else (TaggedCalls(FALLBACK), True)
    reader, several = found or (None, False)
    return ToolHabits(reader, several, _rewrites(chat))


def _reader_of(chat: Chat) -> tuple[CallReader, bool] | None:
    """Return the reader that reads back exactly what the template writes; None: none does.

    With it comes whether the template writes two calls in one turn, which some refuse.
    """
    for count in (len(ARGUMENTS), 1):
        try:
            written = written_turn(chat, calling(ARGUMENTS[:count]))
        except OffapiError:
            continue
        for reader in READERS:
            if _reads(reader, written, count):
                return reader, count > 1
    return None


def written_turn(chat: Chat, turn: Mapping[str, Any]) -> str:
    """Return a turn as the template writes it, without its end. Raise what rendering raises."""
    before = chat.encode(chat.render("", (ASKED,), TOOLS, generate=True))
    after = chat.encode(chat.render("", (ASKED, turn), TOOLS, generate=False))
    return chat.text_of(after[_shared(before, after) : _end(chat, before, after)])


def _rewrites(chat: Chat) -> bool:
    """Return whether the template writes a turn otherwise once a later turn follows.

    Tried with thinking and without, before a result of a tool and before a user's message.
    """
    return any(_rewritten(chat, *trial) for trial in product(_TURNS, _LATER))


def _rewritten(chat: Chat, turn: Mapping[str, Any], later: Sequence[Mapping[str, Any]]) -> bool:
    if (later[0]["role"] == "tool") != ("tool_calls" in turn):
        return False
    try:
        texts = (
            chat.render("", (ASKED,), TOOLS, generate=True),
            chat.render("", (ASKED, turn), TOOLS, generate=False),
            chat.render("", (ASKED, turn, *later), TOOLS, generate=True),
        )
    except OffapiError:
        return False
    before, alone, whole = map(chat.encode, texts)
    through = alone[: _end(chat, before, alone) + 1]
    return whole[: len(through)] != through


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    pairs = zip(first, second, strict=False)
    ends = (n for n, (one, other) in enumerate(pairs) if one != other)
    return next(ends, min(len(first), len(second)))


def _end(chat: Chat, before: Sequence[int], after: Sequence[int]) -> int:
    """Return where the turn ends that `after` has and its prompt, `before`, has not."""
    begin = _shared(before, after)
    ends = (n for n in range(begin, len(after)) if after[n] in chat.stop_ids)
    return next(ends, len(after))


def _reads(reader: CallReader, written: str, count: int) -> bool:
    found = [(call.name, call.arguments) for call in reader.find(written, TOOLS)]
    return found == [(_FUNCTION["name"], arguments) for arguments in ARGUMENTS[:count]]
