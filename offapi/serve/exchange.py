"""What a request asks of the engine, and what is said besides the text when its rows are done.

Left out: sending it (`offapi.serve.chat_completions`).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offapi.completions import Completion, Sampling
from offapi.engine import RowRequest
from offapi.errors import OffapiError
from offapi.serve.chat_request import ChatRequest
from offapi.serve.errors import ApiError, wrong
from offapi.serve.served_models import ServedModel
from offapi.serve.server import Server
from offapi.text.display import plural


@dataclass(frozen=True)
class Finished:
    """What is known when all rows are done.

    `member` is the answer's `offapi` object. `text` replaces the text of the one choice; None
    leaves it.
    """

    member: Mapping[str, Any]
    text: str | None = None


@dataclass(frozen=True)
class Exchange:
    """A request, as rows of the engine.

    The first `n` rows are the choices, in order; others are read with them. `finish` gets the
    completions of all rows. With `held`, `finish` may replace the text, so none is sent before.
    """

    model: ServedModel
    asked: ChatRequest
    rows: tuple[RowRequest, ...]
    finish: Callable[[Sequence[Completion]], Awaitable[Finished]]
    held: bool = False

    @property
    def prompt_tokens(self) -> int:
        """The tokens of the prompt, which the choices share."""
        return len(self.rows[0].tokens)


def plan_exchange(server: Server, model: ServedModel, asked: ChatRequest) -> Exchange:
    """Return what answers `asked`. Raise ApiError for a request that cannot be answered."""
    return _chat(server, model, asked)


def _chat(server: Server, model: ServedModel, asked: ChatRequest) -> Exchange:
    """Return the exchange of a chat that does not ask the model's task."""
    if asked.format.type != "text":
        raise wrong("response_format", "Only text is served.", "unsupported_parameter")
    prompt = prompt_of(server, asked)
    sampling = Sampling(
        max_tokens=room_for(server, asked, len(prompt)),
        stop_ids=server.models.chat.stop_ids,
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        min_p=asked.min_p,
        signals=asked.logprobs,
        top_logprobs=asked.top_logprobs,
    )
    key = row_key(asked)
    rows = tuple(
        RowRequest(prompt, sampling, key=key, sample=sample, adapter=model.adapter)
        for sample in range(asked.n)
    )

    async def finish(completions: Sequence[Completion]) -> Finished:
        return Finished(model.identity)

    return Exchange(model, asked, rows, finish)


def row_key(asked: ChatRequest) -> int:
    """Return the name of the request in the random stream: its seed, or a number of its own.

    The sampling does not hold the seed, so that requests of many seeds are drawn together.
    """
    return secrets.randbits(63) if asked.seed is None else asked.seed & (2**64 - 1)


def prompt_of(server: Server, asked: ChatRequest) -> tuple[int, ...]:
    """Return the tokens of the messages. Raise ApiError where the template refuses them."""
    try:
        prompt = server.models.chat.prompt(asked.messages)
    except OffapiError:
        message = (
            "The model's chat template cannot render these messages: it may not know their roles or"
            " their order."
        )
        raise wrong("messages", message, "invalid_value") from None
    if not prompt:
        raise wrong("messages", "The messages have no text.", "invalid_value")
    return prompt


def room_for(server: Server, asked: ChatRequest, prompt: int, most: int | None = None) -> int:
    """Return the tokens that the answer may have: as asked, else what the context leaves.

    Without a number in the request the limit is `most`, or the server's. Raise ApiError where the
    context cannot hold what is asked for.
    """
    context = server.models.context
    wanted = asked.max_tokens or 1
    if context is not None and prompt + wanted > context:
        need = plural(prompt + wanted, "token")
        message = f"The model's context has {context:,} tokens, and the request needs {need}."
        raise ApiError(400, message, param="messages", code="context_length_exceeded")
    if asked.max_tokens is not None:
        return asked.max_tokens
    free = server.limits.max_tokens if context is None else context - prompt
    return min(most or server.limits.max_tokens, free)
