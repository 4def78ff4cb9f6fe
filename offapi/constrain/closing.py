"""The shortest way to end an answer from where it stands, so that no limit cuts it in two.

A search for a short way, not for the shortest: it closes what is open, takes the first of what is
required, and is as long as the answer that it finds. Left out: proof that none is shorter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from offapi.constrain.vocabulary import Vocabulary, ids_of

if TYPE_CHECKING:
    from llguidance import LLMatcher

# Outside a string: what ends something before what begins something, and 1 before 0, because an
# amount above 0 that begins with 0 does not end by itself.
_FIRST = (b"}", b"]", b"null", b",", b'"', *(b"%d" % i for i in range(1, 10)), b"0", b"false")
State = Literal["outside", "string", "escape"]
_QUOTE, _BACKSLASH = b'"\\'
_MOST_TRIED = 64  # tokens that are tried one by one


def closing(
    at: LLMatcher, state: State, vocabulary: Vocabulary, most: int
) -> tuple[int, ...] | None:
    """Return tokens that end the answer from `at`, the stop token last; None beyond `most`.

    `state` says where the answer stands.
    """
    ahead = at.deep_copy()
    path: list[int] = []
    while not ahead.is_accepting():
        step = ahead.compute_ff_tokens() or [_next(ahead, state, vocabulary)]
        if len(path) + len(step) >= most or ahead.try_consume_tokens(step) != len(step):
            return None
        path += step
        state = state_after(state, b"".join(vocabulary.texts[token] for token in step))
    return (*path, vocabulary.stop_ids[0])


def state_after(state: State, text: bytes) -> State:
    """Return where a JSON text stands after `text`, given where it stood before."""
    for byte in text:
        if state == "escape":
            state = "string"
        elif byte == _BACKSLASH and state == "string":
            state = "escape"
        elif byte == _QUOTE:
            state = "outside" if state == "string" else "string"
    return state


def _next(at: LLMatcher, state: State, vocabulary: Vocabulary) -> int:
    single, inside = vocabulary.single, state == "string"
    firsts = (b'"',) if inside else _FIRST
    for token in (single[text] for text in firsts if text in single):
        if at.validate_tokens([token]) == 1:
            return token
    allowed = ids_of(np.frombuffer(at.compute_bitmask(), np.int32))
    if not len(allowed):
        return vocabulary.stop_ids[0]
    allowed = allowed[allowed < len(vocabulary.lengths)]
    lengths = vocabulary.lengths[allowed]
    quote = single.get(b'"')
    if inside and quote is not None:
        for i in np.argsort(np.where(lengths, lengths, 99), kind="stable")[:_MOST_TRIED]:
            if lengths[i] and at.validate_tokens([int(allowed[i]), quote]) == 2:
                return int(allowed[i])
    return int(allowed[np.argmax(lengths)])
