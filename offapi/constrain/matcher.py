"""One row's constraint: which tokens may come next, for an engine that asks before each.

A stop token is allowed only where the answer is whole. When the tokens that are left are just
enough to end the answer, only what ends it is allowed: an answer within its limit always parses.
Left out: the grammar itself (`grammar`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from offapi.constrain.closing import State, closing, state_after
from offapi.constrain.vocabulary import Vocabulary, ids_of
from offapi.engine import Words
from offapi.errors import BackendError

if TYPE_CHECKING:
    from llguidance import LLMatcher

_MANY = 2000  # allowed tokens; beyond these they are judged by their kind, not one by one
_TAILS = 4  # how many first tokens of the way to the end a token may stand for


@dataclass(frozen=True)
class Room:
    """What an answer may need, in tokens: all of it (`limit`), and what its end may take.

    `longest` bounds the way to the end from anywhere, `step` what one token can add to it.
    """

    limit: int
    longest: int
    step: int


@dataclass(frozen=True)
class Runner:
    """A runner-up: the answer whose field after the text `mark` begins with the likeliest token
    but `rank`.
    """

    mark: bytes
    rank: int


class GrammarMatcher:
    """A grammar's place in one answer, as `offapi.engine.Matcher`."""

    def __init__(
        self, at: LLMatcher, vocabulary: Vocabulary, room: Room, runner: Runner | None = None
    ) -> None:
        self._at, self._vocabulary, self._room, self._runner = at, vocabulary, room, runner
        self._left, self._text = room.limit, b""
        self._state: State = "outside"
        self._end: tuple[int, ...] | None = None  # a way to the end from here, where it is known
        self._marked = False
        self.cut = False  # whether the limit left nothing but the way to the end
        self._words = np.zeros(vocabulary.words, np.int32)

    def fill(self, words: Words) -> bool:
        """See `offapi.engine.Matcher`. Raise BackendError when the grammar fails."""
        own = self._allowed()
        if self._left <= self._room.longest:
            self._keep_room(own)
        if self._runner is not None:
            self._mark(own)
        count = min(len(words), len(own))
        words[:count], words[count:] = own[:count], 0
        if not own[:count].any():
            raise _failed("no token of the model may come next")
        return True

    def accept(self, token: int) -> None:
        """See `offapi.engine.Matcher`. Raise BackendError for a token that was not allowed."""
        self._left -= 1
        self._end = self._end[1:] if self._end and self._end[0] == token else None
        if token in self._vocabulary.stop_ids:
            if not self._at.is_accepting():
                raise _failed("the model ended an answer that is not whole")
            return
        if not self._at.consume_token(token):
            raise _failed(self._at.get_error() or f"token {token} was not allowed")
        text = self._vocabulary.texts[token]
        self._state = state_after(self._state, text)
        if self._runner is not None:
            self._text += text

    @property
    def rank(self) -> int:
        """See `offapi.engine.Matcher`: a runner-up's rank where its field begins, else 0."""
        return self._runner.rank if self._runner is not None and self._marked else 0

    def _allowed(self) -> Words:
        words = self._words
        self._at.unsafe_compute_mask_ptr(words.ctypes.data, words.size * words.itemsize)
        if self._at.is_error():
            raise _failed(self._at.get_error())
        ends = self._at.is_accepting()
        for stop in self._vocabulary.stop_ids:
            _set(words, stop, ends)
        return words

    def _keep_room(self, words: Words) -> None:
        """Leave of `words` the tokens after which the answer can still be ended."""
        if self._end is None:
            self._end = closing(self._at, self._state, self._vocabulary, 2 * self._room.longest)
        if self._end is None:
            return
        spare = self._left - len(self._end)
        if spare > self._room.step:
            return
        kept = np.zeros_like(words)
        if spare > 0:
            for token in self._closable(words, self._end):
                _set(kept, token, True)
            if self._state == "string" and self._plain(self._end):
                kept |= words & self._vocabulary.plain
        _set(kept, self._end[0], True)
        self.cut |= spare <= 0 and bool((words & ~kept).any())
        words &= kept

    def _plain(self, end: tuple[int, ...]) -> bool:
        """Return whether more text may stand before `end`."""
        more = self._vocabulary.single.get(b"x")
        return more is not None and self._validates([more, *end])

    def _closable(self, words: Words, end: tuple[int, ...]) -> list[int]:
        """Return the tokens of `words` that a tail of `end` may follow."""
        allowed = ids_of(words)
        if len(allowed) > _MANY:
            allowed = ids_of(words & ~self._vocabulary.plain)
        tails = [end[i:] for i in range(min(_TAILS, len(end)))]
        fitting = [tail for tail in tails if len(tail) < self._left]
        return [int(token) for token in allowed if self._ends(int(token), fitting)]

    def _ends(self, token: int, tails: list[tuple[int, ...]]) -> bool:
        return any(self._validates([token, *tail]) for tail in tails)

    def _validates(self, tokens: list[int]) -> bool:
        """Return whether `tokens`, of which the last ends the turn, may come next."""
        body = tokens[:-1]
        if self._at.validate_tokens(body) != len(body):
            return False
        ahead = self._at.deep_copy()
        return ahead.consume_tokens(body) and ahead.is_accepting()

    def _mark(self, words: Words) -> None:
        """Note whether the runner-up's field begins here, at a token of its own."""
        assert self._runner is not None
        mark = self._runner.mark
        self._marked = self._text.endswith(mark)
        texts = self._vocabulary.texts
        # A token that holds the mark's end and the value's start would hide the place.
        for cut in range(1, len(mark)):
            if self._text.endswith(mark[:cut]) and not self._marked:
                rest = mark[cut:]
                allowed = ids_of(words)
                over = [int(t) for t in allowed if texts[t].startswith(rest) and texts[t] != rest]
                if len(over) < len(allowed):
                    for token in over:
                        _set(words, token, False)


def _set(words: Words, token: int, allowed: bool) -> None:
    if token >= 32 * len(words):
        return
    bit = np.uint32(1 << (token % 32))
    view = words.view(np.uint32)
    if allowed:
        view[token // 32] |= bit
    else:
        view[token // 32] &= ~bit


def _failed(why: str) -> BackendError:
    return BackendError(
        f"the constraint of an answer failed: {why}.",
        next_step="Report it with the task file, or set constrain = 'off'.",
    )
