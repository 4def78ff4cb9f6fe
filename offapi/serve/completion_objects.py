"""The objects of OpenAI's chat completions: whole answers, and the chunks of streamed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any
from uuid import uuid4

import orjson

from offapi.chat.chat import Chat
from offapi.completions import Completion
from offapi.constrain.vocabulary import Vocabulary
from offapi.engine import NewToken
from offapi.serve.chat_request import ChatRequest
from offapi.serve.exchange import Exchange, Finished
from offapi.serve.text_stream import TextStream
from offapi.tools import Turn

DONE = b"data: [DONE]\n\n"


class ChoiceText:
    """One row while it is written: its tokens, and its text as far as it can be sent."""

    def __init__(self, chat: Chat, asked: ChatRequest) -> None:
        self.tokens: list[NewToken] = []
        self.reason: str | None = None  # OpenAI's finish_reason
        self.text = ""  # all that `add` has returned
        self._text = TextStream(chat, asked.stop)

    def add(self, token: NewToken) -> str:
        """Take a token and return the text that can be sent. `reason` is set by the last one."""
        self.tokens.append(token)
        piece = self._text.add(token.token)
        if token.finish is not None and not self._text.stopped:
            piece += self._text.finish()
            self.reason = token.finish
        if self._text.stopped:
            self.reason = "stop"
        self.text += piece
        return piece

    @property
    def completion(self) -> Completion:
        """The row as a completion of the engine."""
        signals = [token.signals for token in self.tokens if token.signals is not None]
        known = len(signals) == len(self.tokens)
        tokens, logprobs = zip(*((each.token, each.logprob) for each in self.tokens), strict=True)
        free, margins = zip(*signals, strict=True) if known else (None, None)
        finish = self.tokens[-1].finish or "stop"
        return Completion(tokens, logprobs, finish, free_logprobs=free, margins=margins)


@dataclass
class CompletionObjects:
    """Makes the objects of one answer."""

    exchange: Exchange
    chat: Chat
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time()))
    without_logprobs: bool = False

    def whole(
        self, texts: Sequence[str], choices: Sequence[ChoiceText], finished: Finished
    ) -> bytes:
        """Return the body of an answer that is not streamed."""
        each = zip(texts, choices, strict=True)
        body = {
            **self._head("chat.completion"),
            "choices": [
                {
                    "index": index,
                    "message": {**_message(text, finished.turns.get(index)), "refusal": None},
                    "logprobs": self.logprobs(choice.tokens),
                    "finish_reason": choice.reason,
                }
                for index, (text, choice) in enumerate(each)
            ],
            "usage": self.usage(choices),
            "offapi": finished.member,
        }
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)

    def chunk(
        self,
        index: int,
        delta: Mapping[str, Any],
        tokens: Sequence[NewToken] = (),
        reason: str | None = None,
        member: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return one event of a streamed answer."""
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": self.logprobs(tokens) if tokens else None,
            "finish_reason": reason,
        }
        body = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return event(body if member is None else {**body, "offapi": member})

    def usage_chunk(self, choices: Sequence[ChoiceText]) -> bytes:
        """Return the event that ends a streamed answer, if the request asks for it."""
        head = self._head("chat.completion.chunk")
        return event({**head, "choices": [], "usage": self.usage(choices)})

    def usage(self, choices: Sequence[ChoiceText]) -> dict[str, int]:
        """Return the tokens read and written."""
        read, written = self.exchange.prompt_tokens, sum(len(each.tokens) for each in choices)
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }

    def logprobs(self, tokens: Sequence[NewToken]) -> dict[str, Any] | None:
        """Return the tokens' logprobs under the model's own distribution; None if not asked."""
        if self.without_logprobs or not self.exchange.asked.logprobs:
            return None
        shown = [token for token in tokens if token.token not in self.chat.stop_ids]
        return {"content": [self._token(token) for token in shown], "refusal": None}

    def _token(self, token: NewToken) -> dict[str, Any]:
        logprob = token.logprob if token.signals is None else token.signals[0]
        top = token.top or ()
        return {
            **self._spelled(token.token, logprob),
            "top_logprobs": [self._spelled(other, each) for other, each in top],
        }

    def _spelled(self, token: int, logprob: float) -> dict[str, Any]:
        text = Vocabulary.of(self.chat).texts[token]
        return {
            "token": text.decode("utf-8", "replace"),
            "logprob": max(logprob, -9999.0),  # JSON has no infinity; OpenAI writes this number
            "bytes": list(text),
        }

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.exchange.model.name,
            "system_fingerprint": self.exchange.model.fingerprint,
        }


def _message(text: str, turn: Turn | None) -> dict[str, Any]:
    """Return an answer's message: a text, or the calls with what was said before them."""
    if turn is None:
        return {"role": "assistant", "content": text}
    message = turn.message()
    return {**message, "content": message["content"] or None}


def event(body: Mapping[str, Any]) -> bytes:
    """Return a server-sent event of JSON."""
    return b"data: " + orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n\n"
