"""What a template writes around a call's name and arguments, found by rendering calls.

Left out: formats whose arguments are not JSON, which have no such shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from offapi.chat.tool_trials import TOOLS, calling, written_turn
from offapi.text.thinking import end_of_thinking

if TYPE_CHECKING:
    from offapi.chat.chat import Chat

_NAME: str = TOOLS[0]["function"]["name"]
_ONE, _OTHER = {"place": "here"}, {"place": "there"}
_WRITTEN = '{"place": "here"}', '{"place": "there"}'
IDS = ("trial0000", "trial0001")  # of the trial's calls, where a template writes ids


@dataclass(frozen=True)
class CallShape:
    """The texts of a turn that calls: `head` NAME `middle` ARGUMENTS `tail`.

    `between` is what stands between the arguments of one call and the name of the next; None where
    a turn has one call.
    """

    head: str
    middle: str
    between: str | None
    tail: str

    @classmethod
    def of(cls, chat: Chat, *, several: bool) -> CallShape | None:
        """Return the shape that a template writes; None where arguments are not JSON."""
        found = _split(written_turn(chat, calling([_ONE])), _WRITTEN[0])
        if found is None:
            return None
        head, middle, tail = found
        head = head[end_of_thinking(head) :].lstrip("\n")
        if not several:
            return cls(head, middle, None, tail)
        both = written_turn(chat, calling([_ONE, _OTHER])).partition(_WRITTEN[0])[2]
        again = _split(both, _WRITTEN[1])
        if again is None or again[1] != middle:
            return None
        return cls(head, middle, again[0], tail)


def _split(text: str, arguments: str) -> tuple[str, str, str] | None:
    """Return what stands before the name, between it and `arguments`, and after those."""
    before, found, after = text.partition(arguments)
    head, named, middle = before.rpartition(_NAME)
    return (head, middle, after) if found and named else None
