"""The endpoint teacher against real sockets: a small HTTP server that can misbehave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, create_connection
from typing import Any

import orjson
import psutil
import pytest

from offapi.errors import GateFailed, NetworkBlocked, TeacherError
from offapi.teachers import connection, session
from offapi.teachers.endpoint import Endpoint
from offapi.teachers.teacher import Answered, Price, Request, Usage

Reply = tuple[int, dict[str, str], bytes]
USAGE = Usage(100, 10)


class Server:
    """A server that answers chat completions by `script(document, nth)`.

    Where the script returns status 0, it hangs up instead.
    """

    def __init__(self, script: Callable[[str, int], Reply], host: str = "127.0.0.1") -> None:
        self.script, self.lock = script, threading.Lock()
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.under_way = self.most_under_way = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.serve(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer((host, 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *arguments: None  # type: ignore[method-assign]  # clients hang up on purpose
        self.url = f"http://{host}:{self.http.server_port}/v1"
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = orjson.loads(handler.rfile.read(int(handler.headers["content-length"])))
        document = body["messages"][-1]["content"]
        with self.lock:
            self.asked.append(document)
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.times.append(time.monotonic())
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            nth = self.asked.count(document)
        status, headers, content = self.script(document, nth)
        with self.lock:
            self.under_way -= 1
        if handler.path != "/v1/chat/completions":
            status, headers, content = 404, {}, b""
        handler.close_connection = not status
        if status:
            handler.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(content)


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str, int], Reply]], Server]]:
    """Start servers; they stop with the test."""
    started: list[Server] = []

    def start(script: Callable[[str, int], Reply], host: str = "127.0.0.1") -> Server:
        started.append(Server(script, host))
        return started[-1]

    yield start
    for server in started:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff in milliseconds; waits that a server asks for stay real."""
    monkeypatch.setattr(session, "BACKOFF", 0.01)


def good(text: str = "yes", usage: Usage | None = USAGE) -> Reply:
    reply = {"choices": [{"finish_reason": "stop", "message": {"content": text}}]}
    counts = (
        {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
        if usage
        else None
    )
    return 200, {}, orjson.dumps({**reply, "usage": counts})


def slow(seconds: float, reply: Reply) -> Reply:
    time.sleep(seconds)
    return reply


def ask(*documents: str) -> list[Request]:
    return [Request(f"id-{text}", ({"role": "user", "content": text},)) for text in documents]


def teacher(server: Server, **settings: Any) -> Endpoint:
    return Endpoint(server.url, **{"max_tokens": 10, "timeout": 10.0, **settings})


def ended(endpoint: Endpoint, requests: list[Request]) -> tuple[list[Answered], Exception | None]:
    """Return all answers, and the error that ended the session if one did."""
    answers = []
    try:
        for answered in endpoint.answers(requests):
            answers.append(answered)
    except (TeacherError, GateFailed) as error:
        return answers, error
    return answers, None


def test_every_document_gets_its_answer_with_usage_and_latency(
    serve: Callable[..., Server],
) -> None:
    server = serve(
        lambda document, nth: slow(0.02, good(f"re {document}", Usage(len(document), 2)))
    )
    answers = list(teacher(server, model="m", key="sk-1").answers(ask("a", "bb", "ccc")))
    assert {(x.id, x.output, x.reason, x.usage.prompt_tokens) for x in answers} == {
        ("id-a", "re a", "", 1),
        ("id-bb", "re bb", "", 2),
        ("id-ccc", "re ccc", "", 3),
    }
    assert all(0.02 <= x.seconds < 5 for x in answers)
    assert sorted(server.asked) == ["a", "bb", "ccc"]
    assert server.headers[0]["authorization"] == "Bearer sk-1"
    message = [{"role": "user", "content": server.asked[0]}]
    assert server.bodies[0] == {
        "model": "m",
        "messages": message,
        "max_tokens": 10,
        "temperature": 0,
    }


def test_answers_come_as_completed_and_free_slots_are_used(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda document, nth: slow(1.0 if document == "slow" else 0.0, good()))
    answers = teacher(server, concurrency=2).answers(ask("slow", "a", "b", "c"))
    assert [next(answers).id for _ in range(3)] == ["id-a", "id-b", "id-c"]
    assert next(answers).id == "id-slow"


@pytest.mark.parametrize("width", [1, 3])
def test_no_more_requests_in_progress_than_the_concurrency(
    serve: Callable[..., Server], width: int
) -> None:
    server = serve(lambda document, nth: slow(0.05, good()))
    assert len(list(teacher(server, concurrency=width).answers(ask(*"abcdefghi")))) == 9
    assert server.most_under_way == width


def test_temporary_errors_are_retried(serve: Callable[..., Server]) -> None:
    trouble: list[Reply] = [(500, {}, b"oops"), (0, {}, b""), (503, {}, b"")]
    server = serve(
        lambda document, nth: trouble[nth - 1] if nth <= len(trouble) else good(document)
    )
    answers, error = ended(teacher(server), ask("a", "b"))
    assert error is None
    assert sorted((x.output, x.reason) for x in answers) == [("a", ""), ("b", "")]
    assert sorted(server.asked) == ["a"] * 4 + ["b"] * 4


def test_retry_after_makes_all_requests_wait(serve: Callable[..., Server]) -> None:
    said: list[str] = []
    server = serve(
        lambda document, nth: (
            (429, {"Retry-After": "2"}, b"") if (document, nth) == ("a", 1) else good()
        )
    )
    answers, error = ended(teacher(server, concurrency=1, say=said.append), ask("a", "b"))
    assert (len(answers), error) == (2, None)
    assert server.asked == ["a", "a", "b"]
    assert server.times[1] - server.times[0] >= 2.0
    assert said == ["The teacher asks to wait 2 s (HTTP 429)."]


def test_the_session_does_not_give_up_a_busy_server(serve: Callable[..., Server]) -> None:
    server = serve(lambda document, nth: (429, {}, b"") if nth <= session.ATTEMPTS + 1 else good())
    answers, error = ended(teacher(server), ask("a"))
    assert (error, answers[0].reason) == (None, "")


def test_a_wait_of_hours_ends_the_session_without_failures(
    serve: Callable[..., Server],
) -> None:
    server = serve(
        lambda document, nth: (
            (429, {"Retry-After": "86400"}, b"daily") if document == "b" else good()
        )
    )
    answers, error = ended(teacher(server, concurrency=1), ask(*"abc"))
    assert [x.id for x in answers] == ["id-a"]
    assert "wait 86400 s (HTTP 429: daily)" in str(error)
    assert server.asked == ["a", "b"]


def test_failures_are_data_with_their_reason(serve: Callable[..., Server]) -> None:
    replies: dict[str, Reply] = {
        "cut": (
            200,
            {},
            orjson.dumps({"choices": [{"finish_reason": "length", "message": {"content": "{"}}]}),
        ),
        "html": (200, {}, b"<html>"),
        "long": (400, {}, b'{"error": {"message": "context too long"}}'),
        "ok": good(),
    }
    server = serve(lambda document, nth: replies[document])
    answers, error = ended(teacher(server), ask(*replies))
    assert error is None
    assert {x.id: (x.output, x.reason.split(":")[0]) for x in answers} == {
        "id-cut": ("{", "truncated"),
        "id-html": ("", "malformed JSON"),
        "id-long": ("", "HTTP 400"),
        "id-ok": ("yes", ""),
    }
    assert len(server.asked) == 4


def test_a_server_that_hangs_times_out(serve: Callable[..., Server]) -> None:
    server = serve(lambda document, nth: slow(0.6 if document == "hangs" else 0, good()))
    answers, error = ended(teacher(server, timeout=0.2), ask("hangs", "a", "b", "c"))
    assert error is None
    assert {x.id: x.reason for x in answers if x.reason} == {
        "id-hangs": "timed out: no answer in 0.2 s (6 attempts)",
    }


def test_a_server_that_drips_bytes_times_out_too(serve: Callable[..., Server]) -> None:
    """Bytes keep coming, so only a deadline on the whole attempt ends it."""
    server = serve(lambda document, nth: (0, {}, b""))

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers["content-length"]))
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(20):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    server.serve = drip  # type: ignore[method-assign]
    started = time.monotonic()
    answers, _ = ended(teacher(server, timeout=0.2), ask("a"))
    assert answers[0].reason.startswith("timed out")
    assert time.monotonic() - started < 6 * 1.0


def test_an_endless_reply_is_cut(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LARGEST_REPLY", 10_000)
    server = serve(lambda document, nth: (200, {}, b" " * 1_000_000))
    answers, _ = ended(teacher(server), ask("a"))
    assert answers[0].reason == "reply larger than 10000 bytes"


def test_a_server_that_is_gone_ends_the_session(serve: Callable[..., Server]) -> None:
    server = serve(lambda document, nth: good())
    server.http.shutdown()
    server.http.server_close()
    answers, error = ended(teacher(server, concurrency=1), ask(*"abcdef"))
    assert [x.reason.split(":")[0] for x in answers] == ["unreachable"] * session.SILENT
    assert "3 documents in a row got no answer" in str(error)
    assert "--retry-failed" in str(error)


def test_answers_between_failures_keep_the_session_going(serve: Callable[..., Server]) -> None:
    server = serve(lambda document, nth: (403, {}, b"") if document in "bcefhi" else good())
    answers, error = ended(teacher(server, concurrency=1), ask(*"abcdefghi"))
    assert (len(answers), error) == (9, None)


def test_a_refused_key_ends_the_session_and_is_not_shown(serve: Callable[..., Server]) -> None:
    server = serve(lambda document, nth: (401, {}, b'{"error": {"message": "bad key sk-hidden!"}}'))
    answers, error = ended(teacher(server, key="sk-hidden", concurrency=1), ask(*"abc"))
    assert (answers, len(server.asked)) == ([], 1)
    assert "bad key [key]!" in str(error)
    assert "sk-hidden" not in str(error)


KEY = "sk-hid/den+A1"
ECHOES = {
    "plain": KEY,
    "JSON": KEY.replace("/", r"\/"),
    "letters": "".join(f"\\u{ord(letter):04X}" for letter in KEY),
    "mixed": KEY.replace("s", r"\u0073", 1).replace("+", r"\u002b"),
    "JSON in JSON": KEY.replace("s", r"\\u0073", 1).replace("/", r"\\\/"),
    "URL": "sk-hid%2Fden%2BA1",
    "HTML": "sk-hid&#47;den&#x2b;A1",
    "behind much": "x" * 290 + KEY,
}


@pytest.mark.parametrize("way", ECHOES)
@pytest.mark.parametrize("place", ["refusal", "reason", "redirect", "odd reply", "answer"])
def test_a_key_that_is_echoed_in_any_spelling_is_hidden(
    serve: Callable[..., Server], way: str, place: str
) -> None:
    echo = ECHOES[way]
    body = f'{{"error": {{"message": "bad key {echo}!"}}}}'.encode()
    replies: dict[str, Reply] = {
        "refusal": (401, {}, body),
        "reason": (422, {}, body),
        "redirect": (302, {"Location": f"http://127.0.0.1/login?key={echo}"}, b""),
        "odd reply": (200, {}, f'{{"you sent": "{echo}"}}'.encode()),
        "answer": (200, {}, f'{{"choices": [{{"message": {{"content": "{echo}"}}}}]}}'.encode()),
    }
    server = serve(lambda document, nth: replies[place])
    answers, error = ended(teacher(server, key=KEY, concurrency=1), ask("a"))
    shown = f"{error} {[(answer.output, answer.reason) for answer in answers]}"
    assert "[key]" in shown or way == "behind much"
    for part in ("hid", "A1", "0068"):
        assert part not in shown, shown


def test_requests_in_progress_are_kept_when_the_session_ends(serve: Callable[..., Server]) -> None:
    server = serve(lambda document, nth: (401, {}, b"") if document == "b" else slow(0.3, good()))
    answers, error = ended(teacher(server, concurrency=2), ask(*"abcd"))
    assert [x.id for x in answers] == ["id-a"]
    assert isinstance(error, TeacherError)
    assert sorted(server.asked) == ["a", "b"]


def test_no_request_waits_after_the_session_has_ended(serve: Callable[..., Server]) -> None:
    def script(document: str, nth: int) -> Reply:
        if document == "a":
            return 429, {"Retry-After": "300"}, b""
        time.sleep(0.3)
        return 401, {}, b""

    started = time.monotonic()
    answers, error = ended(teacher(serve(script), concurrency=2), ask("a", "b"))
    assert (answers, type(error)) == ([], TeacherError)
    assert time.monotonic() - started < 30


def test_redirects_are_not_followed(serve: Callable[..., Server]) -> None:
    other = serve(lambda document, nth: good())
    server = serve(lambda document, nth: (307, {"Location": f"{other.url}/chat/completions"}, b""))
    answers, error = ended(teacher(server), ask("a"))
    assert (answers, other.asked) == ([], [])
    assert other.url in str(error)


def test_proxies_and_netrc_of_the_environment_are_left_alone(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    other = serve(lambda document, nth: good("proxy"))
    server = serve(lambda document, nth: good("teacher"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login u password p\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, other.url.removesuffix("/v1"))
    assert [x.output for x in teacher(server).answers(ask("a"))] == ["teacher"]
    assert "authorization" not in server.headers[0]


def test_newer_models_get_the_parameters_they_accept(serve: Callable[..., Server]) -> None:
    """All requests succeed, also those refused while others have already found out."""

    def script(document: str, nth: int) -> Reply:
        body = next(
            body for body in reversed(server.bodies) if body["messages"][-1]["content"] == document
        )
        time.sleep(0.05)
        for parameter in ("max_tokens", "temperature"):
            if parameter in body:
                error = {"code": "unsupported_parameter", "param": parameter, "message": "no"}
                return 400, {}, orjson.dumps({"error": error})
        return good()

    server = serve(script)
    answers, error = ended(teacher(server, concurrency=3), ask(*"abcde"))
    assert ([x.reason for x in answers], error) == ([""] * 5, None)
    assert server.bodies[-1] == {
        "messages": server.bodies[-1]["messages"],
        "max_completion_tokens": 10,
    }
    assert len(server.asked) == 3 * 3 + 2


def test_the_cap_is_never_exceeded_and_nearly_used(serve: Callable[..., Server]) -> None:
    """Prompts of 2 bytes are charged 34 tokens, the bound with the template's.

    Answers are charged the 10 tokens that they may have.
    """
    server = serve(lambda document, nth: slow(0.02, good(usage=Usage(34, 10))))
    price = Price(1000.0, 1000.0)  # 0.044 dollars a request
    requests = ask(*(f"{i:02}" for i in range(40)))
    answers, error = ended(teacher(server, concurrency=8, price=price, max_cost=0.5), requests)
    assert isinstance(error, GateFailed)
    assert error.exit_code == 3
    assert len(server.asked) == len(answers) == 11  # 11 * 0.044 = 0.484, 12 would be 0.528
    assert "$0.4840 was spent." in str(error)


def test_earlier_costs_count_and_are_reported_separately(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda document, nth: good(usage=Usage(34, 10)))
    price = Price(1000.0, 1000.0)  # 0.044 dollars a request
    requests = ask(*(f"{i:02}" for i in range(4)))
    answers, error = ended(
        teacher(server, concurrency=1, price=price, max_cost=0.5, paid=0.4), requests
    )
    assert len(server.asked) == len(answers) == 2
    assert "$0.0880 was spent in this call and $0.4880 for the labels file in all." in str(error)


def test_attempts_that_may_be_charged_count_against_the_cap(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda document, nth: (0, {}, b""))
    price = Price(1000.0, 1000.0)  # bound 0.043 dollars an attempt
    answers, error = ended(teacher(server, concurrency=1, price=price, max_cost=0.1), ask("a"))
    assert (answers, len(server.asked)) == ([], 2)
    assert "up to $0.0860 for answers that were cut off" in str(error)


def test_without_usage_a_reply_counts_with_its_bound(serve: Callable[..., Server]) -> None:
    server = serve(lambda document, nth: good(usage=None))
    answers, error = ended(teacher(server, price=Price(1000.0, 1000.0), max_cost=0.1), ask(*"abc"))
    assert (len(answers), len(server.asked)) == (2, 2)
    assert isinstance(error, GateFailed)
    assert answers[0].usage == Usage()


def test_a_budget_that_suffices_does_not_end_the_session(serve: Callable[..., Server]) -> None:
    server = serve(lambda document, nth: good())
    answers, error = ended(teacher(server, price=Price(1.0, 1.0), max_cost=1.0), ask(*"abc"))
    assert (len(answers), error) == (3, None)


def test_an_abandoned_session_hangs_up(serve: Callable[..., Server]) -> None:
    server = serve(lambda document, nth: slow(0.0 if document == "a" else 5.0, good()))
    answers = teacher(server, concurrency=3).answers(ask(*"abcdef"))
    assert next(answers).id == "id-a"
    started = time.monotonic()
    answers.close()
    assert time.monotonic() - started < 1.0
    assert len(server.asked) <= 3


def test_the_network_guard_opens_only_for_the_teacher(serve: Callable[..., Server]) -> None:
    """The teacher is at an address of this machine that is not loopback.

    The guard lets loopback through without asking.
    """
    everywhere = [
        entry.address
        for name in psutil.net_if_addrs().values()
        for entry in name
        if entry.family == AF_INET
    ]
    elsewhere = [address for address in everywhere if not address.startswith("127.")]
    if not elsewhere:
        pytest.skip("this machine has no address but loopback")
    server, other = (serve(lambda document, nth: good(), elsewhere[0]) for _ in range(2))
    answers = teacher(server, terms_checked=True).answers(ask("a"))
    assert next(answers).output == "yes"
    with pytest.raises(NetworkBlocked):
        create_connection((elsewhere[0], other.http.server_port), timeout=1)
    create_connection((elsewhere[0], server.http.server_port), timeout=1).close()
    answers.close()
    with pytest.raises(NetworkBlocked):
        create_connection((elsewhere[0], server.http.server_port), timeout=1)


SCHEMA = {"type": "object", "properties": {"total": {"type": "number"}}}
FORM = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


def test_the_schema_goes_to_servers_that_take_one(serve: Callable[..., Server]) -> None:
    server = serve(lambda document, nth: good())
    answers, error = ended(teacher(server, schema=SCHEMA), ask(*"abc"))
    assert ([x.reason for x in answers], error) == ([""] * 3, None)
    assert [body["response_format"] for body in server.bodies] == [FORM] * 3
    ended(teacher(server), ask("d"))
    assert "response_format" not in server.bodies[-1]


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (400, {"message": "response_format is not supported"}),
        (400, {"code": "unsupported_parameter", "param": "response_format", "message": "no"}),
        (422, {"message": "extra fields not permitted"}),
        (500, {"message": "failed to parse grammar"}),
        (501, {"message": "guided decoding is not built in"}),
        (200, {"message": "json_schema: unknown keyword"}),
    ],
)
def test_a_server_that_refuses_the_schema_is_asked_without_it(
    serve: Callable[..., Server], status: int, refusal: dict[str, str]
) -> None:
    with_schema: list[bool] = []

    def script(document: str, nth: int) -> Reply:
        with_schema.append("response_format" in server.bodies[-1])
        return (status, {}, orjson.dumps({"error": refusal})) if with_schema[-1] else good()

    server, said = serve(script), list[str]()
    endpoint = teacher(server, schema=SCHEMA, concurrency=1, say=said.append)
    answers, stopped = ended(endpoint, ask(*"abcd"))
    assert ([x.reason for x in answers], stopped) == ([""] * 4, None)
    assert with_schema == [True, False, False, False, False]
    assert len(said) == 1
    assert said[0].startswith("The teacher refused the task's schema; it is asked without (")


def test_a_document_that_fails_either_way_keeps_the_schema_for_the_others(
    serve: Callable[..., Server],
) -> None:
    def script(document: str, nth: int) -> Reply:
        return (400, {}, b'{"error": "too long"}') if document == "long" else good()

    server, said = serve(script), list[str]()
    endpoint = teacher(server, schema=SCHEMA, concurrency=1, say=said.append)
    answers, _ = ended(endpoint, ask("long", "b"))
    assert [x.reason for x in answers] == ["HTTP 400: too long", ""]
    assert server.bodies[-1]["response_format"] == FORM
    assert said == []


def test_a_busy_server_keeps_the_schema(serve: Callable[..., Server]) -> None:
    server = serve(lambda document, nth: (503, {}, b"busy") if nth == 1 else good())
    said: list[str] = []
    answers, _ = ended(teacher(server, schema=SCHEMA, say=said.append), ask("a"))
    assert ([x.reason for x in answers], said) == ([""], [])
    assert [body["response_format"] for body in server.bodies] == [FORM] * 2


def test_where_nothing_answers_the_step_names_the_address(serve: Callable[..., Server]) -> None:
    server = serve(lambda document, nth: good())
    server.http.shutdown()
    server.http.server_close()
    _, error = ended(teacher(server), ask(*"abc"))
    assert isinstance(error, TeacherError)
    assert f"Nothing answers at {server.url}." in error.next_step
    assert "`ollama serve`" in error.next_step
    assert "`llama-server" in error.next_step
