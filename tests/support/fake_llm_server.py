"""A model server on loopback with scripted answers.

It speaks Chat Completions and Responses, streamed or not. The first user message, and how often it
was asked before, decide the answer. Requests and answers are kept in `wire`. Left out: everything
that a client can do without.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Turn(NamedTuple):
    """An answer: a text, calls as (id, name, arguments), thinking."""

    text: str | None = None
    calls: Sequence[tuple[str, str, str]] = ()
    thinking: str = ""
    cut: bool = False


class Server(ThreadingHTTPServer):
    """A server that answers while its context is open.

    `scripts` holds the turns of each conversation by its first user message.
    """

    daemon_threads = True

    def __init__(self, scripts: Mapping[str, Sequence[Turn]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wire: list[tuple[dict[str, Any], Turn]] = []
        self._scripts, self._asked, self._lock = scripts, Counter[str](), threading.Lock()

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def turn(self, body: dict[str, Any]) -> tuple[int, Turn]:
        """Return the next turn of a conversation, and its number."""
        given = body.get("messages") or body["input"]
        name = (
            next(m["content"] for m in given if m.get("role") == "user")
            if isinstance(given, list)
            else given
        )
        with self._lock:
            turn = self._scripts[name][self._asked[name]]
            self._asked[name] += 1
            self.wire.append((body, turn))
            return len(self.wire), turn


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number, turn = self.server.turn(body)
        answer = _chat(number, turn) if "messages" in body else _response(number, turn, body)
        if not body.get("stream"):
            self._send("application/json", json.dumps(answer))
            return
        events = _chunks(answer) if "messages" in body else _events(answer)
        self._send(
            "text/event-stream", "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        )

    def _send(self, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _chat(number: int, turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": turn.text}
    if turn.thinking:
        message["reasoning_content"] = turn.thinking
    if turn.calls:
        message["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id, name, arguments in turn.calls
        ]
    ending = "length" if turn.cut else "tool_calls" if turn.calls else "stop"
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    choice = {"index": 0, "message": message, "finish_reason": ending}
    about = {
        "id": f"chat-{number}",
        "object": "chat.completion",
        "created": number,
        "model": "scripted",
    }
    return {**about, "choices": [choice], "usage": usage}


def _chunks(answer: dict[str, Any]) -> list[Any]:
    """Return `answer` in pieces of a few letters."""
    message = answer["choices"][0]["message"]
    about = {**answer, "object": "chat.completion.chunk", "usage": None}
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    deltas += [
        {name: letter}
        for name in ("reasoning_content", "content")
        for letter in message.get(name) or ""
    ]
    for index, call in enumerate(message.get("tool_calls", ())):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        deltas.append(
            {"tool_calls": [{**call, "index": index, "function": {"name": name, "arguments": ""}}]}
        )
        for at in range(0, len(arguments), 3):
            deltas.append(
                {
                    "tool_calls": [
                        {"index": index, "function": {"arguments": arguments[at : at + 3]}}
                    ]
                }
            )
    pieces = [
        {**about, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    last = {"index": 0, "delta": {}, "finish_reason": answer["choices"][0]["finish_reason"]}
    return [
        *pieces,
        {**about, "choices": [last]},
        {**about, "choices": [], "usage": answer["usage"]},
    ]


def _response(number: int, turn: Turn, body: dict[str, Any]) -> dict[str, Any]:
    output: list[dict[str, Any]] = []
    if turn.thinking:
        summary = [{"type": "summary_text", "text": turn.thinking}]
        output.append({"id": f"rs-{number}", "type": "reasoning", "summary": summary})
    if turn.text is not None:
        content = [{"type": "output_text", "text": turn.text, "annotations": []}]
        about = {"id": f"msg-{number}", "type": "message", "status": "completed"}
        output.append({**about, "role": "assistant", "content": content})
    for id, name, arguments in turn.calls:
        call = {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}
        output.append({"id": f"fc-{id}", "status": "completed", **call})
    return {
        "id": f"response-{number}",
        "object": "response",
        "created_at": "not a number",  # as some servers do, against the specification
        "model": "scripted",
        "status": "incomplete" if turn.cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if turn.cut else None,
        "output": output,
        "instructions": body.get("instructions"),
        "tools": body.get("tools", []),
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "usage": {
            "input_tokens": 9,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 12,
        },
    }


def _events(answer: dict[str, Any]) -> list[Any]:
    """Return `answer` as the events of a stream."""
    events: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": {**answer, "output": []}})
    ]
    for index, item in enumerate(answer["output"]):
        events += [
            (f"response.output_item.{kind}", {"output_index": index, "item": item})
            for kind in ("added", "done")
        ]
    events.append((f"response.{answer['status']}", {"response": answer}))
    return [{"type": kind, "sequence_number": i, **event} for i, (kind, event) in enumerate(events)]
