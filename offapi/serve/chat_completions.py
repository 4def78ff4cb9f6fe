"""POST /v1/chat/completions: a request's rows, decoded and sent, whole or as they come.

A client that goes away frees its rows within a step. Left out: what a request asks of the engine
(`offapi.serve.plan`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from time import perf_counter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from offapi.engine import NewToken
from offapi.serve.chat_request import read_chat_request
from offapi.serve.completion_objects import DONE, ChoiceText, CompletionObjects, event
from offapi.serve.engine_loop import RowStream
from offapi.serve.errors import ApiError, failed
from offapi.serve.exchange import Exchange, Finished
from offapi.serve.plan import plan_exchange
from offapi.serve.server import Server
from offapi.serve.tool_turns import deltas

LOG = logging.getLogger("offapi.serve")
PATH = "/v1/chat/completions"


async def chat_completions(request: Request) -> Response:
    """Answer a chat. Raise ApiError for a request that is refused."""
    server: Server = request.app.state.server
    asked = read_chat_request(await request.body(), server.limits)
    exchange = plan_exchange(server, server.models.get(asked.model), asked)
    return ChatAnswer(server, exchange)


class ChatAnswer(Response):
    """The answer to one request, computed while it is sent."""

    def __init__(self, server: Server, exchange: Exchange) -> None:
        self.server, self.exchange = server, exchange
        chat = server.models.chat
        self.objects = CompletionObjects(exchange, chat)
        self.choices = [ChoiceText(chat, exchange.asked) for _ in exchange.rows]
        self.began = perf_counter()
        self.status_code, self.background = 200, None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decode and send. Raise ApiError where the server has no room for the request."""
        async with self.server.loop.rows(self.exchange.rows) as rows:
            send_all = self._stream if self.exchange.asked.stream else self._whole
            if await until_gone(receive, send_all(rows, send)):
                self._count()
            else:
                self.server.metrics.canceled.inc()

    @property
    def shown(self) -> Sequence[ChoiceText]:
        """The rows that are choices of the answer."""
        return self.choices[: self.exchange.asked.n]

    async def _whole(self, rows: RowStream, send: Send) -> None:
        texts = [""] * len(self.choices)
        async for token in rows:
            texts[token.row] += self._add(rows, token)
        finished = await self._finish()
        texts[0] = self._replaced(finished, texts[0])
        await self._keep(finished)
        body = self.objects.whole(texts[: len(self.shown)], self.shown, finished)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, rows: RowStream, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            await self._stream_events(rows, send)
        except Exception as error:  # the status line is sent: the error is an event
            known = error if isinstance(error, ApiError) else failed()
            if known is not error:
                LOG.error("an answer failed: %s", type(error).__name__)
            await _send(send, event(known.body()), more=False)

    async def _stream_events(self, rows: RowStream, send: Send) -> None:
        objects, held = self.objects, self.exchange.held
        shown = range(len(self.shown))
        start = [objects.chunk(i, {"role": "assistant", "content": ""}) for i in shown]
        await _send(send, b"".join(start))
        unsent: list[int] = [0] * len(self.choices)  # tokens whose logprobs were sent
        texts = [""] * len(self.choices)
        async for token in rows:
            index, choice = token.row, self.choices[token.row]
            texts[index] += self._add(rows, token)
            if texts[index] and index in shown and not held:
                fresh, unsent[index] = choice.tokens[unsent[index] :], len(choice.tokens)
                await _send(send, objects.chunk(index, {"content": texts[index]}, fresh))
                texts[index] = ""
        finished = await self._finish()
        texts[0] = self._replaced(finished, texts[0])
        for index in shown if held else ():
            new: Sequence[NewToken] = self.choices[index].tokens
            for delta in deltas(texts[index], finished.turns.get(index)):
                await _send(send, objects.chunk(index, delta, new))
                new = ()
        for index in shown:
            rest = [] if held else self.choices[index].tokens[unsent[index] :]
            member = finished.member if index == shown[-1] else None
            last = objects.chunk(index, {}, rest, self.choices[index].reason, member)
            await _send(send, last)
        await self._keep(finished)
        usage = objects.usage_chunk(self.shown) if self.exchange.asked.include_usage else b""
        await _send(send, usage + DONE, more=False)

    def _add(self, rows: RowStream, token: NewToken) -> str:
        """Give a row its token; a row that a stop string ended decodes no further."""
        choice = self.choices[token.row]
        if not any(each.tokens for each in self.choices):
            self.server.metrics.first_token.observe(perf_counter() - self.began)
        text = choice.add(token)
        if choice.reason is not None and token.finish is None:
            rows.cancel(token.row)
        return text

    async def _finish(self) -> Finished:
        finished = await self.exchange.finish([each.completion for each in self.choices])
        for index, reason in finished.reasons.items():
            self.choices[index].reason = reason
        return finished

    def _replaced(self, finished: Finished, text: str) -> str:
        """Return the first choice's text; another one than its row's has no logprobs."""
        if finished.text is None:
            return text
        self.objects.without_logprobs = True
        return finished.text

    async def _keep(self, finished: Finished) -> None:
        if self.server.capture is not None:
            await self.server.capture.keep(self.objects, self.shown, finished, self.server.metrics)

    def _count(self) -> None:
        metrics = self.server.metrics
        metrics.seconds.observe(perf_counter() - self.began)
        metrics.tokens.labels("prompt").inc(self.exchange.prompt_tokens)
        metrics.tokens.labels("completion").inc(sum(len(each.tokens) for each in self.choices))


async def until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> bool:
    """Do `work` while the client is there, and raise what it raises; return False if it left."""
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
