"""A completion's tokens as text that can be sent while more of them come.

Plain and streamed answers are both made here, so they are equal byte for byte. Left out: special
tokens, which are not text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from offapi.chat.chat import Chat


class TextStream:
    """The text of one completion, which ends before the first of `stops`.

    Held back are bytes that do not make a character yet, and text that may begin a stop string.
    """

    def __init__(self, chat: Chat, stops: Sequence[str] = ()) -> None:
        from tokenizers.decoders import DecodeStream

        self._chat, self._stops = chat, tuple(stops)
        self._decoding = DecodeStream(skip_special_tokens=True)
        self._tokenizer = chat.tokenizer.backend_tokenizer
        self._tokens: list[int] = []
        self._decoded = 0  # characters that decoding has given
        self._held = ""
        self.stopped = False  # whether a stop string has ended it

    def add(self, token: int) -> str:
        """Take the next token and return the text that can be sent now."""
        self._tokens.append(token)
        piece = self._decoding.step(self._tokenizer, token)
        return self._pass(piece) if piece else ""

    def finish(self) -> str:
        """Return the rest of the text; no token comes after this."""
        if self.stopped:
            return ""
        rest = self._chat.decode(self._tokens)[self._decoded :]
        text = self._pass(rest)
        if not self.stopped:
            text, self._held = text + self._held, ""
        return text

    def _pass(self, piece: str) -> str:
        """Return what of the text held back and `piece` cannot belong to a stop string."""
        self._decoded += len(piece)
        text = self._held + piece
        places = [text.find(stop) for stop in self._stops]
        found = [place for place in places if place >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        hold = max((_overlap(text, stop) for stop in self._stops), default=0)
        sent, self._held = text[: len(text) - hold], text[len(text) - hold :]
        return sent


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` may begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)
