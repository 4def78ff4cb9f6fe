"""Which requests ask a task about a document, and which answers are accepted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from offapi import Task
from offapi.checks import is_json
from offapi.checks.verdict import Verdict
from offapi.confidence.promise import Withdrawal
from offapi.data.documents import Document
from offapi.predict.prediction import DocumentAnswer, FieldAnswer
from offapi.predict.predictor import AskedHow
from offapi.serve.acceptance import why_unaccepted
from offapi.serve.chat_request import ChatRequest, ResponseFormat
from offapi.serve.task_questions import NoQuestion, read_question, same_schema

SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string", "description": "its name"}, "n": {"type": "number"}},
    "required": ["title"],
}
TASK = Task("notes", "Read it.", SCHEMA, {"json": (is_json, 1.0)}, {"title": "text"})
WORDS = Task("words", "Sum it up.", None, {"any": (lambda *_: Verdict(1.0, ""), 1.0)})


def asked(*messages: tuple[str, str], **more: Any) -> ChatRequest:
    given = tuple({"role": role, "content": content} for role, content in messages)
    return ChatRequest("student", given, **more)


def schema(**given: Any) -> ResponseFormat:
    return ResponseFormat("json_schema", {"schema": given})


@pytest.mark.parametrize(
    "request_",
    [
        asked(("user", "a letter")),
        asked(("system", "Read it."), ("user", "a letter")),
        asked(("developer", "Read it."), ("user", "a letter")),
        asked(("user", "a letter"), max_tokens=96, top_p=0.5, seed=3, logprobs=True, stream=True),
        asked(("user", "a letter"), format=ResponseFormat("json_object")),
        asked(("user", "a letter"), format=schema(**SCHEMA, additionalProperties=False)),
    ],
)
def test_questions_of_the_task(request_: ChatRequest) -> None:
    assert read_question(TASK, request_) == Document("", "a letter")


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (asked(("system", "Read it!"), ("user", "a letter")), "those of task 'notes'"),
        (asked(("user", "one"), ("assistant", "1"), ("user", "two")), "those of task 'notes'"),
        (asked(("assistant", "a letter")), "those of task 'notes'"),
        (asked(("user", "Read it."), ("user", "a letter")), "those of task 'notes'"),
        (asked(("user", " \n")), "the document is empty"),
        (asked(("user", "a letter"), temperature=0.1), "'temperature' is not 0"),
        (asked(("user", "a letter"), n=2), "'n' is not 1"),
        (asked(("user", "a letter"), stop=("}",)), "'stop' is set"),
        (asked(("user", "a letter"), max_tokens=95), "'max_tokens' is below the task's 96"),
        (asked(("user", "a letter"), format=schema(type="object")), "'response_format'"),
    ],
)
def test_other_requests_and_why(request_: ChatRequest, why: str) -> None:
    found = read_question(TASK, request_)
    assert isinstance(found, NoQuestion)
    assert why in found.note


def test_a_task_that_answers_with_text_gives_no_json() -> None:
    assert isinstance(read_question(WORDS, asked(("user", "a"))), Document)
    wanted = asked(("user", "a"), format=ResponseFormat("json_object"))
    assert isinstance(read_question(WORDS, wanted), NoQuestion)
    assert read_question(None, wanted) == NoQuestion("")


def test_schemas_are_compared_by_what_they_ask_for() -> None:
    titled = {**SCHEMA, "title": "Note", "additionalProperties": False}
    assert same_schema(titled, SCHEMA)
    assert not same_schema({**SCHEMA, "additionalProperties": True}, SCHEMA)
    other = {**SCHEMA, "properties": {"n": {"type": "number"}}}
    assert not same_schema(other, SCHEMA)  # a field may be called title
    assert not same_schema({**SCHEMA, "required": ["n"]}, SCHEMA)


class Given:
    """A promise, as far as acceptance reads it."""

    withdrawn: Withdrawal | None = None


def answer(accepted: bool | None = False, **fields: tuple[float, bool]) -> DocumentAnswer:
    known = {name: FieldAnswer("x", sure, None, yes) for name, (sure, yes) in fields.items()}
    return DocumentAnswer("", {}, known, accepted)


def test_why_an_answer_is_not_accepted() -> None:
    promise: Any = Given()
    how = AskedHow("schema", promise)
    mixed = answer(shop=(0.6249, False), total=(0.95, True))
    assert why_unaccepted(mixed, how, None) == "shop .624 is not accepted"
    assert why_unaccepted(mixed, how, 0.9) == "shop .624 < .9"
    assert why_unaccepted(mixed, how, 0.99) == "shop .624 < .99; total .95 < .99"
    assert why_unaccepted(mixed, how, 0.5) == ""
    assert why_unaccepted(answer(True, shop=(0.2, True)), how, None) == ""
    assert "whole" in why_unaccepted(answer(shop=(0.2, True)), how, None)
    assert why_unaccepted(replace(mixed, error="cut off"), how, 0.1) == "no answer"
    assert why_unaccepted(mixed, AskedHow("schema", None), 0.1) == "no confidence"
    promise.withdrawn = Withdrawal("today", "wrong")
    assert "withdrawn" in why_unaccepted(mixed, how, 0.1)
