"""A turn in which no call can be malformed: it calls the offered tools, or it is the answer.

Calls are written as the model's template writes them, with arguments by the tools' schemas. An
answer is free text, or what the task's own constraint allows. Left out: formats whose arguments are
not JSON, and thinking before a bound answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from offapi.chat.call_shape import IDS, CallShape
from offapi.chat.chat import Chat
from offapi.chat.tool_format import ToolFormat
from offapi.constrain.constraints import DocumentStart, Needs
from offapi.constrain.grammar import Part, check_library, literal
from offapi.constrain.keywords import check_keywords
from offapi.constrain.matcher import GrammarMatcher, Room
from offapi.constrain.vocabulary import Vocabulary, ids_of
from offapi.engine import Words
from offapi.errors import ConfigError

if TYPE_CHECKING:
    from llguidance import LLMatcher

_SPACED = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_MANY = 2000  # allowed tokens; beyond these, text may follow, and a tag's end alone begins a call
_ID = "/[a-zA-Z0-9]{9}/"


def bound_turn(
    format: ToolFormat,
    tools: Sequence[Mapping[str, Any]],
    answer: DocumentStart | None,
    limit: int,
) -> BoundTurn:
    """Return what bounds a turn of at most `limit` tokens, as `offapi.engine.StartMatcher`.

    `answer` bounds the answer; None leaves it free. Raise ConfigError for a format whose calls
    cannot be bound, for a schema that cannot, or for a limit that no call fits into.
    """
    shape = CallShape.of(format.chat, several=format.several)
    if shape is None or format.name == "gpt-oss":
        raise ConfigError(
            f"calls written as {format.name} cannot be constrained.",
            where=format.chat.template,
            next_step="Set constrain = 'off', or use a model that writes calls as JSON.",
        )
    bounded = answer.grammar if answer is not None else None
    turn = BoundTurn(_Calls(format.chat, shape, tuple(tools)), bounded, limit)
    _ = turn.start  # what cannot be bound is said here, not while sampling
    return turn


@dataclass(frozen=True)
class BoundTurn:
    """What bounds one turn; called with a sample's number, it returns a fresh matcher."""

    calls: _Calls
    answer: tuple[str, Part] | None
    limit: int  # tokens

    def __call__(self, sample: int) -> GrammarMatcher:
        """Return the matcher of a turn; all samples are bound alike."""
        matcher, room = self.start
        bound = GrammarMatcher if self.answer is not None else _FreeTurn
        return bound(matcher.deep_copy(), self.vocabulary, room)

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's tokens."""
        return Vocabulary.of(self.calls.chat)

    @cached_property
    def start(self) -> tuple[LLMatcher, Room]:
        """The matcher at a turn's beginning, and the room that a turn needs."""
        from llguidance import LLMatcher

        text, part = self.calls.grammar(self.answer)
        matcher = LLMatcher(self.vocabulary.tokenizer, text)
        if matcher.is_error():
            raise ConfigError(
                f"the calls cannot be constrained: {matcher.get_error().splitlines()[0]}.",
                next_step="Simplify the tools' types, or set constrain = 'off'.",
            )
        needs = Needs.of(matcher, part, self.vocabulary, self.limit)
        if needs.least is None or needs.longest > self.limit:
            raise ConfigError(
                f"max_answer_tokens = {self.limit} has no room for a call of the tools.",
                where="task, field 'max_answer_tokens'",
                next_step=f"Raise it to {2 * needs.longest}.",
            )
        return matcher, needs.room(self.limit)


class _FreeTurn(GrammarMatcher):
    """A turn whose answer is free: near its limit no call may begin, and one that has must end."""

    def _keep_room(self, words: Words) -> None:
        if not self._at.is_accepting():
            super()._keep_room(words)
            return
        bits, allowed = words.view(np.uint32), ids_of(words)
        for token in map(int, allowed):
            if token in self._vocabulary.stop_ids or (
                len(allowed) > _MANY and self._plain_text(token)
            ):
                continue
            ahead = self._at.deep_copy()
            if not (ahead.consume_token(token) and ahead.is_accepting()):
                bits[token // 32] &= np.uint32(~(1 << token % 32) & 0xFFFFFFFF)

    def _plain_text(self, token: int) -> bool:
        """Return whether `token` can begin no call where any text may follow."""
        texts = self._vocabulary.texts
        return token < len(texts) and bool(texts[token]) and b">" not in texts[token]


@dataclass(frozen=True)
class _Calls:
    """The grammar of calls of `tools` in a `shape`."""

    chat: Chat
    shape: CallShape
    tools: tuple[Mapping[str, Any], ...]

    def grammar(self, answer: tuple[str, Part] | None) -> tuple[str, Part]:
        """Return the Lark grammar of a turn, and how long it may become."""
        shape, functions = self.shape, [tool.get("function") or tool for tool in self.tools]
        rules = [f"call{n}: {self._one(each)}" for n, each in enumerate(functions)]
        one = "(" + " | ".join(f"call{n}" for n in range(len(functions))) + ")"
        more = f"({self._texts(shape.between)} {one})*" if shape.between is not None else ""
        body = f"{one} {more} {self._texts(shape.tail)}"
        turn, widest = self._turn(body, answer)
        calls = [shape.head + each["name"] + shape.middle + _widest(each) for each in functions]
        longest = max([widest, *(call + shape.tail for call in calls)], key=len)
        step = max((each["name"] for each in functions), key=len)
        more_step = (shape.between or "") + max(calls, key=len) if shape.between else step
        return "\n".join([turn, *rules]), Part("start", longest, more_step)

    def _turn(self, body: str, answer: tuple[str, Part] | None) -> tuple[str, str]:
        """Return the rules of calls or the answer, and the answer's longest text."""
        head = self.shape.head
        if answer is not None:
            text, part = answer
            return (
                f"start: {self._texts(head)} {body} | answer\nanswer: %lark {{\n{text}\n}}",
                part.widest,
            )
        if any(head.startswith(token) for token in self.chat.special):
            return f"start: TEXT? {self._texts(head)} {body} | TEXT\nTEXT: /(?s:.+)/", ""
        opening = re.match(r"<[^<>]+>", head)
        if opening is None:  # bare JSON: text is what does not begin so
            return f"start: {self._texts(head)} {body} | TEXT\nTEXT: /[^{{\\s](?s:.*)/", ""
        tag = re.escape(opening[0]).replace("/", r"\/")
        rest = self._texts(head[opening.end() :])
        return (
            f"start: opened {rest} {body} | TEXT\nopened[lazy]: /(?s:.*){tag}/\n"
            f"TEXT: /(?s:.+)/ & ~/(?s:.*){tag}(?s:.*)/"
        ), ""

    def _one(self, function: Mapping[str, Any]) -> str:
        """Return the expression of one call's name and arguments."""
        schema = dict(function.get("parameters") or {"type": "object"})
        check_keywords(schema, function["name"])
        schema.setdefault("additionalProperties", False)
        schema["x-guidance"] = _SPACED
        text = orjson.dumps(schema).decode()
        check_library(f"start: %json {text}", f"{function['name']}(...)")
        return f"{self._texts(function['name'] + self.shape.middle)} %json {text}"

    def _texts(self, text: str) -> str:
        """Return the expression of `text`: special tokens by their ids, and any id of a call."""
        marks = sorted([*self.chat.special, *IDS], key=len, reverse=True)
        pieces = re.split("(" + "|".join(map(re.escape, marks)) + ")", text)
        return " ".join(self._piece(piece) for piece in pieces if piece)

    def _piece(self, piece: str) -> str:
        if piece in IDS:
            return _ID
        if piece in self.chat.special:
            return f"<[{self.chat.tokenizer.convert_tokens_to_ids(piece)}]>"
        # A brace of its own: the lexer is greedy, and an answer may begin with one, too.
        return f'"{{" {literal(piece[1:])}' if piece.startswith("{") else literal(piece)


def _widest(function: Mapping[str, Any]) -> str:
    """Return arguments of a usual length with everything in them once."""
    properties = (function.get("parameters") or {}).get("properties") or {}
    choices = {
        name: max(map(str, part.get("enum") or ["x" * 24]), key=len)
        for name, part in properties.items()
    }
    return orjson.dumps(choices).decode()
