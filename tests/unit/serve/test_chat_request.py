"""Bodies of requests: what is read, and what is refused before anything is computed."""

from __future__ import annotations

import json

import orjson
import pytest

from offapi.serve.chat_request import ChatRequest, read_chat_request
from offapi.serve.errors import ApiError
from offapi.serve.limits import ServerLimits

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def read(**members: object) -> ChatRequest:
    return read_chat_request(orjson.dumps({**QUESTION, **members}), ServerLimits())


def refused(body: bytes) -> ApiError:
    with pytest.raises(ApiError) as error:
        read_chat_request(body, ServerLimits())
    assert error.value.status == 400
    return error.value


def test_parts_of_text_are_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked = read(messages=[{"role": "user", "content": parts, "name": "x"}])
    assert asked.messages == ({"role": "user", "content": "ab"},)


def test_answers_are_greedy_unless_asked_otherwise() -> None:
    assert (read().temperature, read(temperature=None).temperature) == (0.0, 0.0)
    assert read(temperature=0.5).temperature == 0.5


def test_what_asks_for_nothing_is_taken() -> None:
    neutral = {"frequency_penalty": 0, "logit_bias": {}, "tools": [], "user": "u", "store": True}
    assert read(**neutral) == read()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"nonsense",
        b'{"model": "m", "messages": NaN}',
        b'{"model": "\xff"}',
        b'{"model": "m"',
        b'"' + b'\\"' * 1_000_000,  # read again from each quote, this would take hours
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    ],
    ids=["empty", "list", "word", "NaN", "bytes", "cut", "quotes", "brackets", "deep"],
)
def test_what_is_not_an_object_is_refused(body: bytes) -> None:
    error = refused(body)
    assert len(orjson.dumps(error.body())) < 1024


def test_brackets_in_a_text_are_not_nesting() -> None:
    text = '[{"' * 1000
    assert read(messages=[{"role": "user", "content": text}]).messages[0]["content"] == text


@pytest.mark.parametrize(
    "member",
    [
        {"logit_bias": {"5": 100}},
        {"messages": [{"role": "user", "content": "x"}] * 1000},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"seed": 2**70},
        {"n": True},
        {"temperature": -1},
        {"top_k": "all"},
        {"stop": "x" * 10_000},
        {"functions": [{}]},
    ],
    ids=lambda member: next(iter(member)),
)
def test_what_cannot_be_done_is_refused_by_name(member: dict[str, object]) -> None:
    error = refused(json.dumps({**QUESTION, **member}).encode())
    assert str(error.param).startswith(next(iter(member)))
