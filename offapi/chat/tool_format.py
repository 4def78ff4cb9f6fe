"""How one model writes calls of tools, and is answered: in its template's own format.

The format is found by trying which reader reads back what the template writes. A template that
writes no tools gets the fallback, plain text (`offapi.chat.plain_tools`). Left out: whether a tool
exists and its arguments fit, which its environment says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from offapi.chat.channels import MARKS, with_tags
from offapi.chat.chat import Chat
from offapi.chat.continuation import beginning, between
from offapi.chat.found_calls import CallReader, FoundCall
from offapi.chat.template_options import HISTORY
from offapi.errors import ConfigError, ModelError
from offapi.text.thinking import end_of_thinking, is_thinking_tag, with_opening
from offapi.tools.calls import MalformedCall, ToolCall, Turn

_ONE = "a turn can have one call only"


@dataclass(frozen=True)
class ToolFormat:
    """The format of `chat` for `tools`, JSON schemas of OpenAI's shape.

    `several` says whether a turn may have more than one call. `rewrites_history` says whether the
    template writes an earlier turn otherwise once a later one follows. `opening` is the tag of
    thinking with which prompts end.
    """

    chat: Chat
    tools: tuple[Mapping[str, Any], ...]
    reader: CallReader
    several: bool
    rewrites_history: bool
    opening: str = ""

    @classmethod
    def of(cls, chat: Chat, tools: Sequence[Mapping[str, Any]]) -> ToolFormat:
        """Return the format that the template of `chat` writes.

        Raise ModelError for an unknown one, and ConfigError where the template rewrites history and
        the chat's option says to split it: what an agent samples is appended.
        """
        habits = chat.tool_habits
        if habits.reader is None:
            raise ModelError(
                "the chat template writes tools, but no call in a format that offapi reads.",
                where=chat.template,
                next_step="Use another model for agents.",
            )
        if habits.rewrites and chat.options.get(HISTORY) == "split":
            raise ConfigError(
                'an agent\'s turns are appended, but template.history is "split".',
                where=chat.template,
                next_step='Set template = { history = "append" }.',
            )
        opening = chat.opening(chat.prompt([{"role": "user", "content": "Hello."}]))
        return cls(chat, tuple(tools), habits.reader, habits.several, habits.rewrites, opening)

    @property
    def name(self) -> str:
        """The format's name, such as "hermes"."""
        return self.reader.name

    def prompt(self, messages: Sequence[Mapping[str, Any]], id: str = "") -> tuple[int, ...]:
        """Return the tokens of `messages` and the tools, up to where the assistant writes."""
        return self.chat.prompt(messages, self.tools, id)

    def read(self, tokens: Sequence[int], first_call: int = 1) -> Turn:
        """Return a sampled turn, whose last token is its end, or what cut it off. It never raises.

        Calls get ids from `first_call` on. Calls within thinking are thoughts.
        """
        ends = set(self.chat.stop_ids)
        kept = list(tokens[:-1] if tokens and tokens[-1] in ends else tokens)
        text = with_opening(self.chat.text_of(kept), self.opening)
        begin = end_of_thinking(text)
        found = self.reader.find(text[begin:], self.tools)
        if not self.several:
            found = [*found[:1], *(replace(each, why=_ONE) for each in found[1:])]
        spans = [(begin + each.begin, begin + each.end) for each in found]
        calls, malformed = _numbered(found, first_call), []
        for (start, end), each in zip(spans, found, strict=True):
            if each.why:
                malformed.append(MalformedCall(text[start:end], each.why))
        around = self._around(text, spans)
        return Turn(around.strip() if calls else around, calls, tuple(malformed))

    def continuation(
        self,
        messages: Sequence[Mapping[str, Any]],
        turn: Turn,
        results: Sequence[Mapping[str, Any]],
        *,
        cut_off: bool = False,
    ) -> tuple[int, ...]:
        """Return the tokens to append after a turn's end, so that the model sees `results` next.

        `messages` are those before the turn. What is between a turn and the next does not depend
        on earlier turns, so only their beginning is rendered. With `cut_off`, the turn has no end
        of its own, and the template's comes first.
        """
        asked = beginning(messages)
        found = between(self.chat, "", asked, turn.message(), results, self.tools)
        return (found.end, *found.tokens) if cut_off else found.tokens

    def _around(self, text: str, spans: Sequence[tuple[int, int]]) -> str:
        """Return `text` without `spans` and special tokens, but with tags of thinking."""
        parts, at = [], 0
        for start, end in spans:
            parts.append(text[at:start])
            at = end
        rest = "".join([*parts, text[at:]])
        if any(mark in rest for mark in MARKS):
            return with_tags(rest, self.chat.special)
        for token in self.chat.special:
            rest = rest if is_thinking_tag(token) else rest.replace(token, "")
        return rest


def _numbered(found: Sequence[FoundCall], first: int) -> tuple[ToolCall, ...]:
    """Return the calls with ids of nine letters and digits, which Mistral's templates demand."""
    calls = [call for call in found if not call.why]
    return tuple(
        ToolCall(f"call{n:05d}", call.name, call.arguments or {})
        for n, call in enumerate(calls, first)
    )
