"""A completion is read as an answer, and each field gets its own tokens."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_llama

import offapi
from offapi.chat.chat import Chat
from offapi.checks import fits_schema, is_json
from offapi.completions import Completion
from offapi.predict.answer_fields import answer_fields
from offapi.predict.reading import Reading

SCHEMA = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string"},
        "seller": {
            "type": ["object", "null"],
            "properties": {"city": {"type": "string"}, "code": {"type": "string"}},
        },
        "lines": {"type": "array", "items": {"type": "object", "properties": {"n": {}}}},
    },
}


def make_task(**changes: Any) -> offapi.Task:
    settings: dict[str, Any] = {
        "name": "t",
        "instructions": "Read.",
        "schema": SCHEMA,
        "match": {"vendor": "text"},
        "checks": {"json": (is_json, 1.0), "schema": (fits_schema, 1.0)},
    }
    return offapi.Task(**{**settings, **changes})


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return Chat.load(tiny_llama.write_chat(tmp_path_factory.mktemp("tiny")))


def completion(chat: Chat, text: str, finish: str = "stop") -> Completion:
    tokens = (*chat.encode(text), chat.stop_ids[0])
    free = tuple(-float(i) for i in range(len(tokens)))
    margins = tuple(float(i) / 2 for i in range(len(tokens)))
    return Completion(tokens, free, finish, free_logprobs=free, margins=margins)  # type: ignore[arg-type]


def test_fields_are_the_schemas_leaves_in_order() -> None:
    assert answer_fields(make_task()) == ("vendor", "seller.city", "seller.code", "lines")


def test_what_the_task_compares_is_one_field() -> None:
    task = make_task(match={"seller": "object", "vendor": "text"})
    assert answer_fields(task) == ("vendor", "seller", "lines")


def test_a_field_has_the_logprobs_of_its_own_tokens(chat: Chat) -> None:
    text = '{"vendor":"Aé","seller":{"city":"X"},"lines":[]}'
    reading = Reading.of(make_task(), chat, completion(chat, text))
    assert reading.value("vendor") == "Aé"
    assert reading.value("seller.city") == "X"
    first = text.index('"Aé"')  # one token a byte
    vendor = reading.fields["vendor"]
    assert vendor.span == (first, first + 4)
    assert vendor.free_logprobs == tuple(-float(i) for i in range(first, first + 5))
    assert vendor.margins == tuple(i / 2 for i in range(first, first + 5))
    assert vendor.mean_logprob == -(first + 2)
    assert set(reading.fields) == {"vendor", "seller.city", "lines"}


def test_inside_a_null_object_the_null_is_the_value(chat: Chat) -> None:
    text = '{"vendor":"A","seller":null}'
    reading = Reading.of(make_task(), chat, completion(chat, text))
    start = text.index("null")
    assert reading.fields["seller.city"].span == (start, start + 4)
    assert reading.value("seller.city") is None


def test_what_stands_around_the_answer_moves_its_fields(chat: Chat) -> None:
    text = '<think>{"vendor":"B"}</think>\n```json\n{"vendor":"A"}\n```'
    reading = Reading.of(make_task(), chat, completion(chat, text))
    assert reading.value("vendor") == "A"
    start, end = reading.fields["vendor"].span
    assert text[start:end] == '"A"'
    assert start == text.rindex('"A"')


def test_an_answer_that_cannot_be_read_has_no_fields(chat: Chat) -> None:
    reading = Reading.of(make_task(), chat, completion(chat, '{"vendor":"A', "length"))
    assert reading.answer.value is None
    assert reading.cut
    assert reading.fields == {}
    assert reading.value("vendor") is None


def test_a_text_is_one_field(chat: Chat) -> None:
    task = make_task(schema=None, match={}, checks={"long": (lambda *_: None, 1.0)})
    reading = Reading.of(task, chat, completion(chat, "<think>x</think> Dear sir "))
    assert reading.value("answer") == "Dear sir"
    start, end = reading.fields["answer"].span
    assert reading.text[start:end] == "Dear sir"
