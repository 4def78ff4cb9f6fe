"""A chat as episodes to learn: each assistant turn as it is generated, through its first end.

What a template drops in silence would be learned as silence, so each turn is compared with its
message first. Left out: rendering, which is the chat's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from offapi.chat.continuation import Between, EndlessTurn, beginning, between
from offapi.chat.messages import with_argument_objects, without_thinking
from offapi.chat.written import drops_thinking, thinking_of, unwritten_call
from offapi.episodes import Episode, Segment
from offapi.errors import DataError, OffapiError
from offapi.text.thinking import begins_thinking, without_empty_end

if TYPE_CHECKING:
    from offapi.chat.chat import Chat

Thinking = Literal["keep", "drop"]

NOTHING = "Remove the row, or add an answer to learn."
ANOTHER = (
    "Use another model, or write a template that does to chat_template.jinja and add it again."
)
# Switches of families' templates that end or leave out thinking, tried where turns do not fit.
SWITCHES: tuple[tuple[str, Any], ...] = (("enable_thinking", False), ("thinking", False))


@dataclass(frozen=True)
class LearnedChat:
    """A row's messages and tools, and the recipe's key `thinking` (None: it has no such key)."""

    chat: Chat
    id: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None
    thinking: Thinking | None

    def episodes(self) -> list[Episode]:
        """Return the episodes; raise DataError where there is nothing to learn, or not as said."""
        turns: list[_Turns] = []
        for i, message in enumerate(self._kept()):
            if message.get("role") != "assistant" or (i == 0 and not _learns(message)):
                continue
            since = self._since(i)
            before, written = self._texts(i, since)
            turn = self._check(i, message, written)
            if not turns or not (since or before.startswith(turns[-1].written)):
                turns.append(_Turns(self.chat))
            turns[-1].add(before, turn, since, self._first_end(i, turn), learned=_learns(message))
        learned = [each.segments() for each in turns if each.learned]
        if not learned:
            what = f"row {self.id!r} has no assistant message to learn."
            raise DataError(what, next_step=NOTHING)
        ids = [self.id if n == 1 else f"{self.id}#{n}" for n in range(1, len(learned) + 1)]
        return [Episode(*each) for each in zip(ids, learned, strict=True)]

    def prompt(self) -> tuple[int, ...]:
        """Return the tokens up to where the next turn is written, earlier ones as generated.

        Raise DataError where the template writes a turn differently from how it is generated.
        """
        said = [i for i, each in enumerate(self.messages) if i and each["role"] == "assistant"]
        tokens: tuple[int, ...] = ()
        for i in said:
            since = self._since(i)
            before, written = self._texts(i, since)
            turn, end = self._first_end(i, self._check(i, self.messages[i], written))
            tokens += (since.tokens if since else self.chat.encode(before)) + turn[:end]
        last = self._since(len(self.messages))
        return tokens + (last.tokens if last else ())

    def _since(self, i: int) -> Between | None:
        """Return what stands between message `i`, a turn, and the turn before it.

        None for the first turn, and where earlier turns are as the template rewrites them.
        """
        kept = self._kept()
        before = [n for n in range(1, i) if kept[n].get("role") == "assistant"]
        if not before or not self.chat.appends(kept, self.tools):
            return None
        last, asked = before[-1], beginning(kept)
        return between(self.chat, self.id, asked, kept[last], kept[last + 1 : i], self.tools)

    def _kept(self) -> list[Mapping[str, Any]]:
        if self.thinking == "drop":
            return [without_thinking(message) for message in self.messages]
        return list(self.messages)

    def _texts(self, i: int, since: Between | None) -> tuple[str, str | None]:
        """Return the prompt of message `i`, and its turn; None where the prompt does not fit it.

        A prompt may end with an empty thinking that turns are written without (Gemma 4, Qwen 3):
        the turn is then what a model says after it.
        """
        message = self._kept()[i]
        if i == 0:
            raise DataError(
                f"{row(self.id)}the assistant begins the chat: there is no prompt to learn its"
                " message from.",
                next_step='Give that message "weight": 0, which leaves it unlearned, or remove it.',
            )
        if not message.get("content") and not message.get("tool_calls"):
            what = f"{row(self.id)}assistant message {i + 1} is empty."
            raise DataError(what, next_step=NOTHING)
        context = since.messages if since else self._kept()[:i]
        before = self.chat.render(self.id, context, self.tools, generate=True)
        after = self.chat.render(self.id, [*context, message], self.tools, generate=False)
        if after.startswith(before):
            return before, after[len(before) :]
        base = without_empty_end(before)
        turn = after[len(base) :]
        return before, turn if after.startswith(base) and not begins_thinking(turn) else None

    def _check(self, i: int, message: Mapping[str, Any], turn: str | None) -> str:
        """Return the turn; raise DataError where it is written otherwise, or only in part."""
        if turn is None:
            raise DataError(
                f"{row(self.id)}the chat template writes message {i + 1} differently from how it is"
                " generated.",
                next_step=self._way_out(i),
            )
        objects = with_argument_objects(self.id, message)
        if name := unwritten_call(objects, turn, self.chat.harmless):
            what = f"the chat template does not write the call of {name!r} in message {i + 1}."
            raise DataError(f"{row(self.id)}{what}", where=self.chat.template, next_step=ANOTHER)
        if _learns(message) and drops_thinking(message, turn, self.chat.harmless):
            what = f"the chat template does not write the thinking of message {i + 1}."
            where = self.chat.template
            raise DataError(f"{row(self.id)}{what}", where=where, next_step=self._dropping())
        return turn

    def _first_end(self, i: int, turn: str) -> tuple[tuple[int, ...], int]:
        """Return the turn's tokens, and how many there are through the first id that ends it."""
        tokens = self.chat.encode(turn)
        end = next((at for at, token in enumerate(tokens) if token in self.chat.stop_ids), None)
        if end is None:
            raise self._endless(tokens)
        if end == 0:
            what = f"{row(self.id)}the chat template writes message {i + 1} without its text."
            raise DataError(what, where=self.chat.template, next_step=ANOTHER)
        return tokens, end + 1

    def _endless(self, tokens: Sequence[int]) -> EndlessTurn:
        """Return the error for a turn without an end, with the token that it should be."""
        special = self.chat.special_ids
        last = next((token for token in reversed(tokens) if token in special), None)
        step = "Add the id that ends a turn to eos_token_id in generation_config.json."
        if last is not None:
            step = (
                f"The turn's last special token is {special[last]!r}: add its id, {last}, to"
                " eos_token_id in generation_config.json, and add the model again."
            )
        ids = self.chat.stop_ids
        what = f"the template does not end the assistant's turn with any of the ids {ids}."
        return EndlessTurn(f"{row(self.id)}{what}", next_step=step)

    def _way_out(self, i: int) -> str:
        """Return what to change so that message `i` is written as it is generated, tried first."""
        thought = any(thinking_of(message) for message in self.messages[: i + 1])
        if self.thinking != "drop" and thought:
            dropped = replace(self, thinking="drop")
            if dropped._fits(i):
                return self._dropping()
        for name, value in SWITCHES:
            if name in self.chat.reads and name not in self.chat.options:
                changed = self.chat.with_options({**self.chat.options, name: value})
                if replace(self, chat=changed)._fits(i):
                    return f"Set template = {{ {name} = {str(value).lower()} }} in the recipe."
        return ANOTHER.replace("that does ", "that writes a turn as it is generated ")

    def _fits(self, i: int) -> bool:
        try:
            return self._texts(i, self._since(i))[1] is not None
        except OffapiError:
            return False

    def _dropping(self) -> str:
        if self.thinking is None:
            return "Remove the thinking from the row's messages."
        return "Set thinking = 'drop' in the recipe, or remove it from the row's messages."


class _Turns:
    """Turns of one episode, each after what stands between it and the one before."""

    def __init__(self, chat: Chat) -> None:
        self.written, self.learned = "", False
        self._chat = chat
        self._segments: list[Segment] = []
        self._after: tuple[int, ...] = ()  # what the template writes after the last turn's end
        self._rest: tuple[int, ...] = ()  # of it, what `written` holds

    def add(
        self,
        before: str,
        turn: str,
        since: Between | None,
        tokens_end: tuple[tuple[int, ...], int],
        *,
        learned: bool,
    ) -> None:
        """Append `turn`, which follows `before`; its tokens are cut at its end.

        `since` is what stands between it and the turn before, where that is known.
        """
        tokens, cut = tokens_end
        asked = self._rest + self._chat.encode(before[len(self.written) :])
        self._segments.append(Segment(since.tokens if since else asked, False))
        self._segments.append(Segment(tokens[:cut], sampled=learned))
        self.learned = self.learned or learned
        through = self._chat.text_of(tokens[:cut])
        if turn.startswith(through):
            self.written, self._rest = before + through, ()
        else:  # the tokenizer does not return the text that it got
            self.written, self._rest = before + turn, tokens[cut:]
        self._after = tokens[cut:]

    def segments(self) -> tuple[Segment, ...]:
        """Return the segments that have tokens."""
        last = Segment(self._after, sampled=False)
        return tuple(segment for segment in (*self._segments, last) if segment.tokens)


def row(id: str) -> str:
    """Return how errors begin: with the row's id, if it has one."""
    return f"row {id!r}: " if id else ""


def _learns(message: Mapping[str, Any]) -> bool:
    return bool(message.get("weight", 1) != 0)
