"""A stronger endpoint: asked once more where that may help, and never a reason to fail."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest

from offapi import Task
from offapi.checks import is_json
from offapi.errors import ConfigError, NetworkBlocked
from offapi.serve import escalation as module
from offapi.serve.escalation import Escalated, Escalation

SCHEMA = {"type": "object", "properties": {"shop": {"type": "string"}}, "required": ["shop"]}
TASK = Task("letters", "Name the shop.", SCHEMA, {"json": (is_json, 1.0)}, {"shop": "text"})
GOOD = '{"shop": "Ash"}'
Reply = tuple[int, dict[str, str], str]


class Endpoint(ThreadingHTTPServer):
    """A real server that gives the scripted replies in turn, and keeps what it was sent."""

    def __init__(self, *replies: Reply) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies, self.bodies, self.keys = list(replies), [], []  # type: ignore[var-annotated]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def log_message(self, *_: object) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(orjson.loads(body))
        self.server.keys.append(self.headers["Authorization"])
        status, headers, content = self.server.replies.pop(0)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content.encode()))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content.encode())


def good(text: str = GOOD, finish: str = "stop") -> Reply:
    choice = {"finish_reason": finish, "message": {"content": text}}
    return 200, {}, orjson.dumps({"choices": [choice]}).decode()


@contextmanager
def serving(*replies: Reply) -> Iterator[Endpoint]:
    endpoint = Endpoint(*replies)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    try:
        yield endpoint
    finally:
        endpoint.shutdown()
        endpoint.server_close()


def ask(url: str, **options: Any) -> Escalated:
    escalation = Escalation(url, **options)
    with escalation.open():
        return asyncio.run(escalation.ask("student", TASK, "from Ash", "shop .6 < .9"))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", 0.01)


def test_the_task_is_asked_and_the_answer_is_served() -> None:
    with serving(good()) as endpoint:
        given = ask(endpoint.url, model="large", key="sk-1")
    assert given.text == GOOD
    to = endpoint.url.split("/")[2]
    assert given.member == {"to": to, "model": "large", "why": "shop .6 < .9", "failed": None}
    (body,) = endpoint.bodies
    assert body["messages"] == TASK.messages("from Ash")
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("large", 0, 96)
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert endpoint.keys == ["Bearer sk-1"]


def test_a_fence_around_the_answer_is_not_served() -> None:
    with serving(good(f"```json\n{GOOD}\n```")) as endpoint:
        assert ask(endpoint.url).text == GOOD


def test_it_is_asked_once_more_and_not_for_ever() -> None:
    with serving((503, {}, "busy"), good()) as endpoint:
        assert ask(endpoint.url).text == GOOD
    with serving((503, {}, "busy"), (503, {}, "busy"), good()) as endpoint:
        given = ask(endpoint.url)
        assert (given.text, given.member["failed"]) == (None, "HTTP 503: busy")
        assert len(endpoint.bodies) == 2
    with serving((429, {"Retry-After": "60"}, "slow down"), good()) as endpoint:
        assert ask(endpoint.url).text is None
        assert len(endpoint.bodies) == 1


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (good(finish="length"), "truncated"),
        (good(""), "empty answer"),
        (good("The shop is Ash."), "no answer to the task: "),
        (good('{"shop": 7}'), "its answer does not fit the task's schema"),
        ((401, {}, "bad key sk-1"), "refused access"),
        ((307, {"Location": "http://10.0.0.1/"}, ""), "does not answer chat completions"),
        ((200, {}, "<html>"), "malformed JSON"),
    ],
)
def test_a_failure_is_a_reason_and_never_an_error(reply: Reply, why: str) -> None:
    with serving(reply) as endpoint:
        given = ask(endpoint.url, key="sk-1")
    assert given.text is None
    assert why in given.member["failed"]
    assert "sk-1" not in given.member["failed"]


def test_an_endpoint_that_is_silent_costs_its_time_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        given = ask(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", seconds=0.2)
    assert given.text is None
    assert given.member["failed"].startswith("timed out")


def test_what_it_does_is_counted_without_content() -> None:
    with serving(good(), (400, {}, "no")) as endpoint:
        escalation = Escalation(endpoint.url)
        for document in ("one", "two"):
            asyncio.run(escalation.ask("student", TASK, document, "why"))
    assert escalation.line() == f"2 documents went to {escalation.to}, 1 without an answer."


def test_that_host_and_port_alone_can_be_reached() -> None:
    with Escalation("http://10.255.255.1:8000/v1").open():
        assert socket.getaddrinfo("10.255.255.1", 8000)
        for host, port in (("10.255.255.2", 8000), ("10.255.255.1", 8001), ("example.com", 8000)):
            with pytest.raises(NetworkBlocked):
                socket.getaddrinfo(host, port)
    with pytest.raises(NetworkBlocked):
        socket.getaddrinfo("10.255.255.1", 8000)


@pytest.mark.parametrize(
    ("url", "key", "why"),
    [
        ("ftp://host/v1", None, "no host or an impossible port"),
        ("https://me:secret@host/v1", None, "would be logged"),
        ("http://api.example.com/v1", "sk-1", "unencrypted"),
    ],
)
def test_addresses_that_are_refused(url: str, key: str | None, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        Escalation(url, key=key)
    assert "--escalate" in str(refused.value)
    assert "secret" not in str(refused.value)
