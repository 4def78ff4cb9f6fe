"""Why a model's answers do not end before the token limit, when hardly any does.

Left out: answers that are merely long, which a higher limit lets end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from offapi.chat.continuation import EndlessTurn
from offapi.chat.learned_turns import SWITCHES
from offapi.errors import OffapiError
from offapi.text.thinking import mostly_thinking

if TYPE_CHECKING:
    from offapi.chat.chat import Chat

RAISE = "Raise the task's max_answer_tokens."
_TURN = ({"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"})


def why_endless(chat: Chat) -> EndlessTurn | None:
    """Return the error where the template ends turns with an id at which no answer stops."""
    try:
        chat.episodes("", _TURN)
    except EndlessTurn as error:
        return error
    except OffapiError:
        return None
    return None


def cut_off_advice(chat: Chat, texts: Sequence[str]) -> str:
    """Return the cause and what to do about answers, `texts`, that the token limit cut off."""
    if endless := why_endless(chat):
        return f"No answer can end: {endless.what} {endless.next_step}"
    if not mostly_thinking(texts):
        return RAISE
    switches = [name for name, _ in SWITCHES if name in chat.reads and name not in chat.options]
    step = f" Or set template = {{ {switches[0]} = false }}, which ends it." if switches else ""
    return f"Most were still thinking. {RAISE}{step}"
