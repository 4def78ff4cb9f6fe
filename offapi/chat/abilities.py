"""What training will do with a model's chat template, tried when the model is added.

Each trial learns a short chat. What the template cannot is kept with the model, with the reason.
Left out: whether the model does well at it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from offapi.errors import OffapiError

if TYPE_CHECKING:
    from offapi.chat.chat import Chat

FILE = "abilities.json"  # in a stored model's folder

Abilities = Mapping[str, str]  # what a recipe may learn: why the template cannot; "" if it can

_ASKED, _TOLD = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}
_THOUGHT = {**_TOLD, "reasoning_content": "Two and two."}
_NUMBER = {"type": "object", "properties": {"number": {"type": "integer", "description": "It."}}}
_FIND = {"name": "find", "description": "Look it up.", "parameters": _NUMBER}
_TOOLS = ({"type": "function", "function": _FIND},)
_ARGUMENTS = {"name": "find", "arguments": '{"number": 4}'}
_CALL = {"id": "call00001", "type": "function", "function": _ARGUMENTS}
_CALLED = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_FOUND = {"role": "tool", "tool_call_id": "call00001", "name": "find", "content": "four"}
TRIALS: Mapping[str, tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]] | None]] = {
    "answers": ((_ASKED, _TOLD), None),
    "chats of several turns": ((_ASKED, _TOLD, _ASKED, _TOLD), None),
    "tool calls": ((_ASKED, _CALLED, _FOUND, _TOLD), _TOOLS),
    "thinking": ((_ASKED, _THOUGHT), None),
}


def try_abilities(chat: Chat) -> dict[str, str]:
    """Return for each kind of chat why the template of `chat` cannot be trained on it, or ""."""
    return {name: _reason(chat, *trial) for name, trial in TRIALS.items()}


def read_abilities(folder: Path) -> dict[str, str]:
    """Return what was tried when the model in `folder` was added; {} where nothing was."""
    try:
        found = orjson.loads((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(name): str(why) for name, why in found.items()} if isinstance(found, dict) else {}


def say_abilities(abilities: Abilities) -> list[str]:
    """Return a sentence for each kind of chat that cannot be learned, with the reason."""
    return [f"It cannot learn {name}: {why}" for name, why in abilities.items() if why]


def _reason(
    chat: Chat, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> str:
    try:
        chat.episodes("", messages, tools)
    except OffapiError as error:
        return f"{error.what} {error.next_step}"
    return ""
