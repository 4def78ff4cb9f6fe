"""From a checked request to what is asked of the engine: a question of the task, or a chat.

Left out: what a question of the task is (`offapi.serve.task_questions`).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from offapi.completions import Completion, Sampling
from offapi.data.documents import Document
from offapi.engine import RowRequest
from offapi.errors import OffapiError
from offapi.serve.chat_request import ChatRequest
from offapi.serve.errors import ApiError, wrong
from offapi.serve.exchange import Exchange, Finished
from offapi.serve.served_models import ServedModel
from offapi.serve.server import Server
from offapi.serve.task_questions import noted, plan_question, read_question
from offapi.serve.tool_turns import read_turns
from offapi.text.display import plural


def plan_exchange(server: Server, model: ServedModel, asked: ChatRequest) -> Exchange:
    """Return what answers `asked`. Raise ApiError for a request that cannot be answered."""
    question = read_question(model.predictor.task, asked)
    if isinstance(question, Document):
        return plan_question(server, model, asked, question)
    return _chat(server, model, asked, question.note)


def _chat(server: Server, model: ServedModel, asked: ChatRequest, note: str) -> Exchange:
    """Return the exchange of a chat that does not ask the model's task."""
    prompt, chat = prompt_of(model, asked), model.predictor.chat_format
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
    start = server.formats.bound_by_schema(asked.format, sampling.max_tokens)
    if asked.tools and start is not None:
        raise wrong("response_format", "An answer with tools cannot be bound.", "invalid_value")
    key = row_key(asked)
    rows = tuple(
        RowRequest(prompt, sampling, key=key, sample=sample, adapter=model.adapter, start=start)
        for sample in range(asked.n)
    )

    async def finish(completions: Sequence[Completion]) -> Finished:
        member = noted(model.identity, note)
        if asked.tools:
            turns = read_turns(chat, asked, completions)
            return Finished(member, reasons=dict.fromkeys(turns, "tool_calls"), turns=turns)
        cut = {sample: "length" for sample in range(asked.n) if start and start.cut(sample)}
        return Finished(member, reasons=cut)

    return Exchange(model, asked, rows, finish, held=bool(asked.tools))


def row_key(asked: ChatRequest) -> int:
    """Return the name of the request in the random stream: its seed, or a number of its own.

    The sampling does not hold the seed, so that requests of many seeds are drawn together.
    """
    return secrets.randbits(63) if asked.seed is None else asked.seed & (2**64 - 1)


def prompt_of(model: ServedModel, asked: ChatRequest) -> tuple[int, ...]:
    """Return the tokens of the messages. Raise ApiError where the template refuses them."""
    try:
        prompt = model.predictor.chat_format.prompt(asked.messages, asked.tools or None)
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
        message = (
            f"The model's context has {plural(context, 'token')}, and the request needs {need}."
        )
        raise ApiError(400, message, param="messages", code="context_length_exceeded")
    if asked.max_tokens is not None:
        return asked.max_tokens
    free = server.limits.max_tokens if context is None else context - prompt
    return min(most or server.limits.max_tokens, free)
