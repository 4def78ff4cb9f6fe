"""`offapi serve` against clients that are hostile, broken, slow, gone or many.

Bytes go over a bare socket where no client would send them.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bigram_llama
import httpx2
import psutil
import pytest
from raw_http import close_all, connect, read_answer, send, sent_until_cut, wait_for
from serving import Served, serving

PATH = "/v1/chat/completions"
SECRET = "ECHO-7731"  # in what is sent, and never in an answer or the log
KEY = "0123456789abcdef0123"
LIMITS = {
    "header_seconds": 1.0,
    "body_seconds": 1.0,
    "write_seconds": 0.5,
    "rows": 24,
    "connections": 40,
    "body_bytes": 1 << 20,
}
LONG = 1900  # tokens


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that answers `ok` to what ends in 1, and forever to what ends in ?."""
    answers = {"1": ["ok"], "?": ["so ", "on ", "∞"]}
    return bigram_llama.write(tmp_path_factory.mktemp("models") / "tiny", answers)


@pytest.fixture(scope="module")
def started(model: Path) -> Iterator[Callable[[str], Served]]:
    """Return what gives a backend's server, started once."""
    running: dict[str, Served] = {}
    with ExitStack() as stack:

        def get(backend: str) -> Served:
            if backend not in running:
                served = serving(model, "--backend", backend, limits=LIMITS)
                running[backend] = stack.enter_context(served)
            return running[backend]

        yield get
        for served in running.values():
            assert SECRET not in served.log
            assert not any("\r" in line or "Traceback" in line for line in served.said)


@pytest.fixture
def each(started: Callable[[str], Served], backend_name: str) -> Served:
    """Return each backend's server in turn."""
    return started(backend_name)


@pytest.fixture
def server(started: Callable[[str], Served]) -> Served:
    """Return one server, for what no backend has a part in."""
    return started("torch" if find_spec("torch") else "mlx")


def body(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": SECRET}]
    return {"model": "tiny", "messages": messages, "max_tokens": 4, **more}


def raw(content: bytes | None = None, *headers: str, start: str = f"POST {PATH} HTTP/1.1") -> bytes:
    """Return a request as bytes; a body has its length unless `headers` has one."""
    lines = [start]
    named = " ".join(headers).lower()
    if "host:" not in named:
        lines.append("Host: localhost")
    if "content-type:" not in named and content is not None:
        lines.append("Content-Type: application/json")
    if "content-length:" not in named and "chunked" not in named and content is not None:
        lines.append(f"Content-Length: {len(content)}")
    head = "\r\n".join([*lines, *headers, "", ""])
    return head.encode("latin-1") + (content or b"")


def refused(status: int, answer: tuple[int, bytes, bytes]) -> dict[str, Any]:
    """Check that an answer is OpenAI's error object with this status; return it."""
    got, head, content = answer
    assert got == status, (got, content)
    assert len(content) < 1024
    assert SECRET.encode() not in head + content
    error: dict[str, Any] = json.loads(content)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


def asked(**more: Any) -> bytes:
    return json.dumps(body(**more)).encode()


FITS = asked()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (raw(FITS, "Host: evil.example"), 403),
        (raw(FITS, "Host: localhost.evil.example:8080"), 403),
        (raw(FITS, "Origin: http://evil.example"), 403),
        (raw(FITS, "Origin: http://localhost"), 403),
        (raw(FITS, "Origin: null"), 403),
        (raw(None, "Origin: http://evil.example", start="GET /v1/models HTTP/1.1"), 403),
        (raw(None, "Origin: http://evil.example", start=f"OPTIONS {PATH} HTTP/1.1"), 403),
        (raw(None, "Host: evil.example", start="GET /health HTTP/1.1"), 403),
        (b"GET /health HTTP/1.0\r\n\r\n", 403),
        (raw(FITS, "Content-Type: text/plain"), 415),
        (raw(FITS, "Content-Type: application/x-www-form-urlencoded"), 415),
        (raw(FITS, "Content-Type: application/json; charset=utf-16"), 415),
        (raw(FITS, "Content-Type:"), 415),
        (raw(FITS, "Content-Encoding: gzip"), 415),
        (raw(b"{" + b" " * (1 << 20), "Expect: 100-continue"), 413),
        (raw(b"", f"Content-Length: {1 << 40}"), 413),
        (raw(FITS, "Content-Length: -1"), 400),
        (raw(FITS, "Content-Length: 5", "Content-Length: 6"), 400),
        (raw(FITS, "Content-Length: 5, 6"), 400),
        (raw(FITS, "Content-Length: 1e3"), 400),
        (raw(b"0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (raw(b"xyz\r\n", "Transfer-Encoding: chunked"), 400),
        (raw(FITS, "Transfer-Encoding: gzip"), 400),
        (raw(None, "Content-Type: application/json"), 400),
        (raw(FITS, f"X-Large: {'x' * (20 << 10)}"), 431),
        (raw(FITS, f"X-Large: {'x' * (300 << 10)}"), 431),
        (raw(FITS, *(f"X-{i}: {i}" for i in range(4000))), 431),
        (raw(None, start=f"GET /{'x' * (20 << 10)} HTTP/1.1"), 431),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (raw(FITS, "X-Fold: a\x00b"), 400),
        (raw(FITS, f"X-{SECRET} no colon"), 400),
        (raw(None, start=f"GET /{SECRET} HTTP/1.1"), 404),
        (raw(None, start="GET /v1/models/../../etc/passwd HTTP/1.1"), 404),
        (raw(None, start="GET /v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd HTTP/1.1"), 404),
        (raw(None, start="GET //etc/passwd HTTP/1.1"), 404),
        (raw(None, start="GET http://evil.example/v1/models HTTP/1.1"), 404),
        (raw(None, start=f"GET /%0d%0aINFO:%20{SECRET} HTTP/1.1"), 404),
        (raw(FITS, start="POST /v1/models HTTP/1.1"), 405),
        (raw(None, start=f"GET {PATH} HTTP/1.1"), 405),
        (raw(None, start=f"CONNECT {PATH} HTTP/1.1"), 405),
    ],
)
def test_what_is_not_a_request_of_ours_is_refused(
    server: Served, request_bytes: bytes, status: int
) -> None:
    refused(status, send(server, request_bytes))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        FITS[:-1],
        FITS + b"x",
        FITS.replace(b"ECHO", b"ECH\xff"),
        FITS.replace(b"ECHO", b"ECH\\ud800"),
        FITS.replace(b'"max_tokens": 4', b'"max_tokens": NaN'),
        FITS.replace(b'"max_tokens": 4', b'"temperature": NaN'),
        FITS.replace(b'"max_tokens": 4', b'"temperature": Infinity'),
        FITS.replace(b'"max_tokens": 4', b'"temperature": 1e999'),
        b"[" * 100_000,
        b'{"model":' * 50_000,
        b'{"messages": ' + b"[" * 65 + b"]" * 65 + b"}",
        asked(model=[SECRET]),
        asked(messages=SECRET),
        asked(messages=[SECRET]),
        asked(messages=[]),
        asked(messages=[{"role": "user", "content": "x"}] * 5000),
        asked(messages=[{"role": SECRET, "content": "x"}]),
        asked(messages=[{"role": "user", "content": {"text": SECRET}}]),
        asked(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": SECRET}]}]),
        asked(messages=[{"role": "user", "content": SECRET * 9000}]),
        asked(n=0),
        asked(n=-1),
        asked(n=1000),
        asked(n=1e300),
        asked(n="2"),
        asked(max_tokens=0),
        asked(max_tokens=-1),
        asked(max_tokens=10**9),
        asked(max_tokens=10**400),
        asked(temperature=-1),
        asked(temperature=1e300),
        asked(top_p=0),
        asked(top_p=2),
        asked(logprobs=SECRET),
        asked(logprobs=True, top_logprobs=10_000),
        asked(logprobs=True, top_logprobs=-1),
        asked(stop=[SECRET] * 100),
        asked(stop=""),
        asked(stop="x" * 100_000),
        asked(stop=[[SECRET]]),
        asked(logit_bias={str(i): 1 for i in range(10_000)}),
        asked(logit_bias={SECRET: 1}),
        asked(seed=2**70),
        asked(chat_template_kwargs={SECRET: "x"}),
        asked(**{SECRET: 1}),
        asked(**{f"{SECRET}{i}": i for i in range(20_000)}),
        asked(response_format={"type": SECRET}),
        asked(stream_options=SECRET),
        asked(tools=[{"type": "function", "function": {"name": SECRET, "strict": True}}]),
        asked(
            tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": SECRET}}}]
        ),
    ],
)
def test_a_body_out_of_bounds_is_a_400_that_repeats_nothing(server: Served, content: bytes) -> None:
    refused(400, send(server, raw(content)))


def test_an_unknown_model_is_a_404(server: Served) -> None:
    assert refused(404, send(server, raw(asked(model=SECRET))))["code"] == "model_not_found"
    assert refused(404, send(server, raw(asked(model="../../etc/passwd"))))["param"] == "model"


def test_bodies_have_a_length_or_chunks(server: Served) -> None:
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(FITS), FITS)
    for request in (
        raw(chunks, "Transfer-Encoding: chunked"),
        raw(FITS, f"Content-Length: {len(FITS)}", f"Content-Length: {len(FITS)}"),
        raw(FITS, "Content-Type: application/json; charset=UTF-8"),
        raw(FITS, "Host: [::1]:99", "Expect: 100-continue"),
    ):
        assert send(server, request)[0] == 200


def test_a_chunked_body_without_end_is_cut_off(server: Served) -> None:
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with connect(server) as connection:
        connection.sendall(raw(b"", "Transfer-Encoding: chunked"))
        assert sent_until_cut(connection, [piece] * 100_000) < 100_000
    assert psutil.Process(server.process.pid).memory_info().rss < 2 << 30
    with connect(server) as connection:
        connection.sendall(raw(b"", "Transfer-Encoding: chunked") + piece * 20)
        refused(413, read_answer(connection))


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"POST ",
        raw(FITS)[:60],
        raw(FITS)[:-5],
        raw(b"5\r\nab", "Transfer-Encoding: chunked"),
    ],
)
def test_a_request_that_never_ends_is_ended(server: Served, start: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(start)
        begun = time.monotonic()
        refused(408, read_answer(connection))
        assert 0.8 < time.monotonic() - begun < 8


def test_a_second_request_that_never_ends_is_ended(server: Served) -> None:
    with connect(server) as connection:
        connection.sendall(raw(FITS))
        assert read_answer(connection)[0] == 200
        connection.sendall(raw(FITS)[:60])
        begun = time.monotonic()
        refused(408, read_answer(connection))
        assert time.monotonic() - begun < 8


def test_a_header_that_drips_is_ended(server: Served) -> None:
    def drip() -> Iterator[bytes]:
        for letter in b"GET /health HTTP/1.1\r\nX-Slow: " + b"x" * 50:
            yield bytes([letter])
            time.sleep(0.1)

    with connect(server) as connection:
        assert 5 < sent_until_cut(connection, drip()) < 60


def test_a_connection_serves_many_requests(server: Served) -> None:
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(raw(FITS))
            assert read_answer(connection)[0] == 200
        connection.sendall(raw(FITS) * 2)  # the second before the first is answered
        assert read_answer(connection)[0] == 200


ENDLESS = [{"role": "user", "content": f"{SECRET}?"}]


def stream(**more: Any) -> bytes:
    return raw(asked(messages=ENDLESS, max_tokens=LONG, stream=True, **more))


def send_and_leave(server: Served, request: bytes, wait: Callable[[Any], None]) -> None:
    """Send a request, wait for something, and close the connection."""
    with connect(server) as connection:
        connection.sendall(request)
        wait(connection)


@pytest.mark.parametrize(
    ("request_bytes", "wait"),
    [
        (stream(n=16), lambda connection: None),
        (stream(), lambda connection: connection.recv(4096)),
        (raw(asked(messages=ENDLESS, max_tokens=LONG)), lambda connection: time.sleep(0.1)),
        (
            raw(asked(messages=ENDLESS, max_tokens=LONG)) + raw(FITS),
            lambda connection: time.sleep(0.1),
        ),
    ],
    ids=["before_the_first_token", "mid_stream", "not_streamed", "with_a_second_request"],
)
def test_a_client_that_leaves_frees_its_rows(
    each: Served, request_bytes: bytes, wait: Callable[[Any], None]
) -> None:
    steps, left = each.metric("offapi_engine_steps"), each.metric("offapi_canceled")
    send_and_leave(each, request_bytes, wait)
    wait_for(each, "offapi_canceled", left + 1)
    wait_for(each, "offapi_live_rows", 0, seconds=0.5)
    assert each.metric("offapi_rows") == 0
    after = each.metric("offapi_engine_steps")
    assert after - steps < LONG * 0.8
    assert each.metric("offapi_engine_steps") == after


def test_a_full_queue_is_a_429_that_says_when(each: Served) -> None:
    with connect(each) as first, connect(each) as second:
        for connection in (first, second):
            connection.sendall(stream(n=12))
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        answer = send(each, raw(FITS))
        assert refused(429, answer)["code"] == "rate_limit_exceeded"
        assert b"retry-after: 1" in answer[1].lower()
    wait_for(each, "offapi_live_rows", 0)
    assert send(each, raw(FITS))[0] == 200


def test_too_many_connections_are_refused(server: Served) -> None:
    held = [connect(server) for _ in range(38)]
    try:
        with connect(server), connect(server), connect(server) as late:
            answer = read_answer(late)
            refused(503, answer)
            assert b"retry-after" in answer[1].lower()
    finally:
        for connection in held:
            connection.close()
    assert send(server, raw(FITS))[0] == 200


def test_a_reader_that_takes_nothing_is_cut_off(each: Served) -> None:
    left = each.metric("offapi_canceled")
    with connect(each, received=2048) as connection:
        connection.sendall(stream(n=16, logprobs=True))
        wait_for(each, "offapi_canceled", left + 1, seconds=20)
    wait_for(each, "offapi_live_rows", 0, seconds=0.5)


def test_1000_requests_leave_nothing_behind(each: Served) -> None:
    process = psutil.Process(each.process.pid)

    def state() -> tuple[int, int, int]:
        return process.num_fds(), process.num_threads(), process.memory_info().rss

    async def ask(client: httpx2.AsyncClient, at: int) -> int:
        if at % 10 == 9:
            answer = await client.post(PATH, json=body(n=0))
            return int(answer.status_code == 400)
        content = f"{SECRET} {at} 1"
        messages = [{"role": "user", "content": content}]
        answer = await client.post(PATH, json=body(messages=messages, stream=at % 2 == 0))
        return int(answer.status_code == 200 and "finish_reason" in answer.text)

    async def ask_all(first: int, last: int) -> int:
        room = asyncio.Semaphore(8)
        limits = httpx2.Limits(max_connections=8)
        root = each.url
        async with httpx2.AsyncClient(base_url=root, limits=limits, trust_env=False) as client:

            async def one(at: int) -> int:
                async with room:
                    return await ask(client, at)

            return sum(await asyncio.gather(*map(one, range(first, last))))

    assert asyncio.run(ask_all(0, 300)) == 300
    time.sleep(0.2)
    before = state()
    assert asyncio.run(ask_all(300, 1000)) == 700
    time.sleep(0.2)
    after = state()
    assert after[:2] == before[:2]
    assert after[2] - before[2] < 8 << 20
    assert each.metric("offapi_live_rows") == 0


def test_a_server_that_others_reach_needs_its_key(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o600)
    with serving(model, "--host", "0.0.0.0", "--key-file", str(file)) as server:
        for path in ("/v1/models", "/metrics", "/", "/v1/files"):
            for headers in ((), ("Authorization: Bearer wrong",), (f"X-Key: {KEY}",)):
                answer = send(server, raw(None, *headers, start=f"GET {path} HTTP/1.1"))
                assert refused(401, answer)["code"] == "invalid_api_key"
        refused(401, send(server, raw(FITS)))
        assert send(server, raw(None, start="GET /health HTTP/1.1"))[0] == 200
        key = f"Authorization: Bearer {KEY}"
        assert send(server, raw(FITS, key))[0] == 200
        refused(403, send(server, raw(FITS, key, "Host: evil.example")))
        assert KEY not in server.log
        command = " ".join(psutil.Process(server.process.pid).cmdline())
        assert KEY not in command


@pytest.mark.parametrize(("how", "backend"), [(signal.SIGTERM, "torch"), (signal.SIGINT, "mlx")])
def test_a_signal_lets_what_is_in_flight_end(model: Path, how: int, backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed here")
    with serving(model, "--backend", backend) as server:
        streamed, whole, idle = (connect(server) for _ in range(3))
        streamed.sendall(stream())
        whole.sendall(raw(asked(messages=ENDLESS, max_tokens=LONG)))
        wait_for(server, "offapi_live_rows", 2)
        server.process.send_signal(how)
        assert idle.recv(1) == b"", "an unused connection is closed"
        with pytest.raises(ConnectionError):
            connect(server)
        assert read_answer(whole)[0] == 200
        status, _, events = read_answer(streamed)
        assert status == 200
        assert b"data: [DONE]" in events[-40:]
        assert server.process.wait(20) == 0
        assert not any("Traceback" in line for line in server.said)


def test_a_second_signal_ends_at_once(model: Path) -> None:
    with serving(model) as server:
        connection = connect(server)
        connection.sendall(stream(n=16))
        assert connection.recv(4096)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        begun = time.monotonic()
        assert server.end(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 3
        assert not any("Traceback" in line for line in server.said)


def test_after_the_grace_time_a_stream_ends_with_an_error_event(model: Path) -> None:
    with serving(model, limits={"grace_seconds": 0}) as server:
        connection = connect(server)
        connection.sendall(stream(n=16))
        received = connection.recv(4096)
        server.process.send_signal(signal.SIGTERM)
        while data := connection.recv(65536):
            received += data
        assert received.count(b"HTTP/1.1") == 1
        last = [line for line in received.split(b"\r\n") if line.startswith(b"data: ")][-1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "server_ending"
        assert server.process.wait(20) == 0
