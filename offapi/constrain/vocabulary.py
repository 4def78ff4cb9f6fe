"""A model's tokens as the grammar library reads them, made once for each tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from offapi.engine import Words
from offapi.errors import ModelError

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from offapi.chat.chat import Chat


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model, and those that end its turn."""

    tokenizer: LLTokenizer
    stop_ids: tuple[int, ...]

    @classmethod
    def of(cls, chat: Chat) -> Vocabulary:
        """Return the vocabulary of a chat's tokenizer; raise ModelError where it cannot be read."""
        known = _KNOWN.get(chat.tokenizer)
        if known is None or known.stop_ids != chat.stop_ids:
            known = cls(_read(chat), chat.stop_ids)
            _KNOWN[chat.tokenizer] = known
        return known

    @property
    def words(self) -> int:
        """How many 32-bit words a mask of all tokens has."""
        return -(-self.tokenizer.vocab_size // 32)

    def encode(self, text: str) -> list[int]:
        """Return the tokens that the model's own tokenizer makes of `text`."""
        return self.tokenizer.tokenize_str(text)

    @cached_property
    def texts(self) -> tuple[bytes, ...]:
        """The bytes of each token; none for a special one."""
        tokenizer = self.tokenizer
        return tuple(
            b"" if tokenizer.is_special_token(i) else tokenizer.decode_bytes([i])
            for i in range(tokenizer.vocab_size)
        )

    @cached_property
    def plain(self) -> Words:
        """The tokens that are whole characters which a JSON string writes as they are, (W,)."""
        bits = np.zeros(self.words * 32, np.uint8)
        for i, text in enumerate(self.texts):
            bits[i] = bool(text) and not (set(text) & _SPECIAL) and _whole(text)
        return np.packbits(bits, bitorder="little").view(np.int32)

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """The bytes of each token's text, 0 where it holds a quote or a backslash, (V,)."""
        return np.array([0 if set(text) & _MARKS else len(text) for text in self.texts], np.int32)

    @cached_property
    def single(self) -> dict[bytes, int]:
        """The token of each text that is a whole token."""
        return {text: i for i, text in enumerate(self.texts) if text}


def ids_of(words: Words) -> NDArray[np.intp]:
    """Return the tokens whose bits are set."""
    return np.unpackbits(words.view(np.uint8), bitorder="little").nonzero()[0]


_KNOWN: WeakKeyDictionary[Any, Vocabulary] = WeakKeyDictionary()
_MARKS = frozenset(b'"\\')
_SPECIAL = _MARKS | frozenset(range(32))


def _whole(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read(chat: Chat) -> LLTokenizer:
    import llguidance.hf

    try:
        return llguidance.hf.from_tokenizer(chat.tokenizer, eos_token=list(chat.stop_ids))
    except Exception as error:  # the library refuses what it cannot read with errors of its own
        raise ModelError(
            f"the model's tokenizer cannot be constrained: {error}",
            where=chat.template,
            next_step="Use a model with a fast tokenizer (tokenizer.json), or constrain = 'off'.",
        ) from error
