"""What replies mean: answers, failures, and errors that end the session."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from offapi.errors import TeacherError
from offapi.teachers import chat_completions
from offapi.teachers.teacher import Request, Usage
from offapi.tools.calls import MalformedCall, ToolCall


def completion(**changes: Any) -> bytes:
    message = {"role": "assistant", "content": changes.pop("content", '{"total":1}')}
    more = ("refusal", "reasoning", "tool_calls")
    message |= {name: changes.pop(name) for name in more if name in changes}
    choice = {"index": 0, "finish_reason": changes.pop("finish", "stop"), "message": message}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    return orjson.dumps({"choices": [choice], "usage": usage, **changes})


def test_an_answer() -> None:
    assert chat_completions.read_reply(200, {}, completion()) == chat_completions.Reply(
        '{"total":1}', usage=Usage(9, 4)
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (completion(finish="length", content='{"tot'), "truncated"),
        (completion(finish="length", content=None), "truncated"),
        (completion(finish="content_filter", content=""), "content_filter"),
        (completion(content=None), "no content"),
        (completion(content=None, refusal="I cannot"), "refused: I cannot"),
        (completion(content=" \n"), "empty answer"),
        (completion(content=[{"type": "text", "text": "x"}]), "content is not text"),
        (completion(choices=[]), "no choices: "),
        (completion(choices=None), "no choices: "),
        (completion(choices=[{"message": None}]), "no choices: "),
        (b"[1, 2]", "no choices: [1, 2]"),
        (b'{"error": {"message": "overloaded"}}', "error: overloaded"),
        (b"<html>welcome</html>", "malformed JSON: "),
        (b'{"choices": [{"message": {"content": "\xff"}}]}', "malformed JSON: "),
        (b'{"choices": [{"message": {"content": "\\ud800"}}]}', "malformed JSON: "),
        (b"", "malformed JSON: "),
    ],
)
def test_a_reply_that_is_not_an_answer_says_why(content: bytes, reason: str) -> None:
    reply = chat_completions.read_reply(200, {}, content)
    assert reply.reason.startswith(reason)
    assert not reply.again


def test_a_truncated_answer_keeps_its_text_and_its_cost() -> None:
    reply = chat_completions.read_reply(200, {}, completion(finish="length", content='{"tot'))
    assert (reply.output, reply.usage) == ('{"tot', Usage(9, 4))


ODD_USAGE = (
    {"prompt_tokens": True},
    {"prompt_tokens": 9, "completion_tokens": False},
    {"prompt_tokens": 2**60},
)


@pytest.mark.parametrize(
    "usage", [None, {}, [], {"prompt_tokens": "9"}, {"prompt_tokens": -1}, *ODD_USAGE]
)
def test_usage_that_is_not_reported_is_unknown(usage: object) -> None:
    assert chat_completions.read_reply(200, {}, completion(usage=usage)).usage is None


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_a_busy_server_is_asked_again_when_it_says_so(status: int) -> None:
    reply = chat_completions.read_reply(status, {"retry-after": "7"}, b"busy")
    assert (reply.again, reply.wait, reply.reason) == (True, 7.0, f"HTTP {status}: busy")
    assert reply.usage == Usage()  # costs nothing


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_a_document_can_be_refused_by_itself(status: int) -> None:
    reply = chat_completions.read_reply(
        status, {"retry-after": "7"}, b'{"error": {"message": "context too long"}}'
    )
    assert (reply.again, reply.wait, reply.reason) == (
        False,
        None,
        f"HTTP {status}: context too long",
    )


@pytest.mark.parametrize(
    ("status", "content", "says"),
    [
        (401, b'{"error": {"message": "bad key"}}', "refused access .HTTP 401: bad key"),
        (402, b"", "refused access"),
        (429, b'{"error": {"message": "no money", "code": "insufficient_quota"}}', "no money"),
        (404, b"Not Found", "HTTP 404: Not Found"),
        (301, b"", "redirects to http://elsewhere/v1"),
    ],
)
def test_what_would_meet_every_request_ends_the_session(
    status: int, content: bytes, says: str
) -> None:
    with pytest.raises(TeacherError, match=says) as caught:
        chat_completions.read_reply(status, {"location": "http://elsewhere/v1"}, content)
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"error": "plain"}', "plain"),
        (b'{"detail": "fastapi"}', "fastapi"),
        (b'{"message": "top"}', "top"),
        (b"<b>proxy</b>", "<b>proxy</b>"),
        (b"line\r\n\x1b[31mred\x00", "line [31mred"),
        (b'{"error": null}', ""),
    ],
)
def test_error_texts_of_many_servers_on_one_clean_line(content: bytes, message: str) -> None:
    assert chat_completions.read_reply(400, {}, content).reason == "HTTP 400" + (
        f": {message}" if message else ""
    )


def test_a_server_that_echoes_the_request_does_not_fill_the_file() -> None:
    assert len(chat_completions.read_reply(400, {}, b"x" * 100_000).reason) < 400


FAR = "Wed, 21 Oct 999999999999999999999 07:28:10 GMT"


def test_retry_after_as_seconds_and_as_a_date() -> None:
    noon = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT
    assert chat_completions.retry_after("2.5") == 2.5
    assert chat_completions.retry_after("-3") == 0.0
    assert chat_completions.retry_after("Wed, 21 Oct 2015 07:28:10 GMT", now=noon) == 10.0
    assert chat_completions.retry_after("Wed, 21 Oct 2015 07:27:00 GMT", now=noon) == 0.0
    assert [chat_completions.retry_after(value) for value in ("", "soon", "nan", "inf", FAR)] == [
        None
    ] * 5


def test_a_model_that_wants_a_parameter_spelled_otherwise() -> None:
    error = {
        "message": "use max_completion_tokens",
        "code": "unsupported_parameter",
        "param": "max_tokens",
    }
    assert (
        chat_completions.read_reply(400, {}, orjson.dumps({"error": error})).unsupported
        == "max_tokens"
    )
    assert (
        chat_completions.read_reply(
            400, {}, orjson.dumps({"error": {**error, "code": "invalid"}})
        ).unsupported
        == ""
    )


def test_the_request_names_a_model_only_when_one_was_named() -> None:
    ask = Request("a", ({"role": "user", "content": "x"},))
    assert orjson.loads(chat_completions.request_body(ask, None, {"max_tokens": 8})) == {
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 8,
    }
    assert orjson.loads(chat_completions.request_body(ask, "m", {}))["model"] == "m"


@pytest.mark.parametrize("value", ["1" + "0" * 21, "Fri, 31 Dec 9999 23:59:59 GMT", "1e300"])
def test_a_wait_of_ages_is_a_year(value: str) -> None:
    assert chat_completions.retry_after(value, now=0.0) == 366 * 86400.0


@pytest.mark.parametrize("value", ["Fri, 31 Dec 99999999999999999999 23:59:59 GMT", "inf", "nan"])
def test_a_wait_that_is_no_time_is_none(value: str) -> None:
    assert chat_completions.retry_after(value, now=0.0) is None


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (7, "not an object with a function"),
        ({"name": "find", "arguments": "{}"}, "not an object with a function"),
        ({"function": {"arguments": "{}"}}, "names no function"),
        ({"function": {"name": "find", "arguments": '{"a": 1'}}, "not JSON"),
        ({"function": {"name": "find", "arguments": '{"a": NaN}'}}, "not JSON"),
        ({"function": {"name": "find", "arguments": "[1]"}}, "not a JSON object"),
        ({"function": {"name": "find", "arguments": 5}}, "not a JSON object"),
    ],
)
def test_what_is_no_call_is_said_to_be_malformed(call: object, why: str) -> None:
    read = chat_completions.read_call(call)
    assert isinstance(read, MalformedCall)
    assert why in read.why
    assert read.text


def test_calls_count_where_tools_were_offered() -> None:
    call = {"id": "1", "function": {"name": "find", "arguments": None}}
    content = completion(content=None, tool_calls=[call])
    read = chat_completions.read_reply(200, {}, content, with_tools=True)
    assert (read.reason, read.calls) == ("", (ToolCall("1", "find", {}),))
    assert chat_completions.read_reply(200, {}, content).reason == "no content"
    odd = chat_completions.read_reply(200, {}, completion(tool_calls={}), with_tools=True)
    assert odd.reason == "tool_calls is not a list"
