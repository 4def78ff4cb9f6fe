"""One reading of an answer: what is set aside and counted, what is named and never repaired."""

from __future__ import annotations

from typing import Any

import pytest

from offapi.checks import answer_reading as reading
from offapi.checks.answer_forms import count_forms
from offapi.checks.answer_reading import read_answer, read_trace
from offapi.data.traces import Trace
from offapi.text.thinking import strip_thinking

OBJECT = '{"vendor": "Foo Ltd", "total": 12.5}'
VALUE = {"vendor": "Foo Ltd", "total": 12.5}
FENCED = [
    f"```json\n{OBJECT}\n```",
    f"```\n{OBJECT}\n```",
    f"  ```JSON\r\n{OBJECT}\r\n```  \n",
    f"~~~json\n{OBJECT}\n~~~",
    f"```json {OBJECT} ```",
    f"```{OBJECT}```",
    f"````json\n{OBJECT}\n````",
    f"```json title=answer\n{OBJECT}\n```",
    f"```json\n{OBJECT}",  # stopped at the closing fence
    f"{OBJECT}\n```",  # begun for the model
    f"`{OBJECT}`",
]


@pytest.mark.parametrize("text", FENCED)
def test_one_fence_is_set_aside_and_named(text: str) -> None:
    answer = read_answer(text)
    assert (answer.value, answer.forms, answer.error) == (VALUE, (reading.FENCE,), "")
    assert answer.text == OBJECT
    strict = read_answer(text, strict=True)
    assert (strict.value, strict.forms) == (None, (reading.FENCE,))
    assert strict.error == "in a code fence, and the task is strict"


THOUGHT = [
    f"<think>It is {{12.5}}.</think>\n\n{OBJECT}",
    f"The shop is Foo.</think>\n\n{OBJECT}",
    f"The shop is Foo.\n</think>{OBJECT}",
    f"<thinking>\nFoo.\n</thinking>\n{OBJECT}",
    f"[THINK]Foo.[/THINK]{OBJECT}",
    f"<think></think><think>Foo.</think>{OBJECT}",
]


@pytest.mark.parametrize("text", THOUGHT)
@pytest.mark.parametrize("strict", [False, True])
def test_thinking_is_set_aside_even_by_strict_tasks(text: str, strict: bool) -> None:
    answer = read_answer(text, strict=strict)
    assert (answer.value, answer.forms, answer.text) == (VALUE, (reading.THINKING,), OBJECT)


def test_thinking_and_a_fence() -> None:
    answer = read_answer(f"<think>Foo.</think>\n```json\n{OBJECT}\n```")
    assert (answer.value, answer.forms) == (VALUE, (reading.THINKING, reading.FENCE))


def test_tags_inside_an_answer_stay() -> None:
    text = '{"vendor": "<think>Foo</think>", "total": 1}'
    answer = read_answer(text)
    assert answer.value == {"vendor": "<think>Foo</think>", "total": 1}
    assert answer.forms == ()
    prose = "The tag </think> ends a thought, and </b> ends bold type."
    assert strip_thinking(prose) == prose


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (f"[{OBJECT}]", reading.LIST_OF_ONE),
        (f"```json\n[{OBJECT}]\n```", reading.LIST_OF_ONE),
        (f"[{OBJECT}, {OBJECT}]", reading.LIST),
        ("[]", reading.LIST),
        ('"{\\"total\\": 12.5}"', reading.QUOTED),
        ("12.5", reading.OTHER_JSON),
        ("null", reading.OTHER_JSON),
        (f"{OBJECT}\n{OBJECT}", reading.SEVERAL),
        (f"Here is the JSON:\n```json\n{OBJECT}\n```", reading.AROUND),
        (f"<answer>{OBJECT}</answer>", reading.AROUND),
        (f"{OBJECT}\nI hope this helps.", reading.AROUND),
        (f"In {{braces}}: {OBJECT}", reading.AROUND),
        ('{"vendor": "Foo Lt', reading.CUT_SHORT),
        ('{"vendor": "Foo Ltd", "tot', reading.CUT_SHORT),
        ('{"vendor": "Foo Ltd",', reading.CUT_SHORT),
        ('```json\n{"vendor": "Foo', reading.CUT_SHORT),
        ("{'vendor': 'Foo Ltd', 'total': None}", reading.PYTHON),
        ('{"total": 12.5,}', reading.BROKEN),
        ('{"total": NaN}', reading.BROKEN),
        ('{"total": 1, "total": 2}', reading.BROKEN),
        ("I cannot read this.", reading.TEXT),
        ("", reading.EMPTY),
        (" \n", reading.EMPTY),
        ("<think>The shop is", reading.UNFINISHED),
    ],
)  # fmt: skip
def test_other_forms_are_named_and_not_repaired(text: str, form: str) -> None:
    answer = read_answer(text)
    assert answer.value is None
    assert answer.forms[-1] == form
    assert answer.error


def test_a_hostile_answer_takes_no_time() -> None:
    for text in ("{" * 50_000, '{"a":' * 50_000, "[" * 50_000, "x{" * 50_000, "`" * 50_000):
        assert read_answer(text).value is None


def called(*arguments: str, content: str | None = None) -> Trace:
    calls = [
        {"id": str(i), "type": "function", "function": {"name": "Invoice", "arguments": text}}
        for i, text in enumerate(arguments)
    ]
    last: dict[str, Any] = {"role": "assistant", "content": content, "tool_calls": calls}
    return Trace("a", ({"role": "user", "content": "Foo Ltd"}, last), ({"type": "function"},))


@pytest.mark.parametrize("content", [None, "", "Let me write that down.", "<think>Foo.</think>"])
def test_the_arguments_of_the_one_call_are_the_answer(content: str | None) -> None:
    trace = called(OBJECT, content=content)
    answer = read_trace(trace)
    assert (answer.value, answer.forms, trace.answer) == (VALUE, (reading.CALL,), OBJECT)
    assert trace.single_shot
    strict = read_trace(trace, strict=True)
    assert (strict.value, strict.error) == (None, "in a tool call, and the task is strict")


def test_an_answer_in_text_is_not_replaced_by_a_call() -> None:
    trace = called('{"to": "a@example.com"}', content=OBJECT)
    assert (read_trace(trace).value, trace.answer, trace.called) == (VALUE, OBJECT, "")


def test_several_calls_are_named() -> None:
    answer = read_trace(called(OBJECT, OBJECT))
    assert (answer.value, answer.forms) == (None, (reading.CALLS,))
    assert answer.error == "2 tool calls, not one answer"


def test_forms_are_counted_and_the_commonest_reason_comes_first() -> None:
    texts = [*[f"```\n{OBJECT}\n```"] * 3, OBJECT, f"[{OBJECT}]", f"[{OBJECT}]", '{"total']
    forms = count_forms(map(read_answer, texts))
    assert forms.lines() == [
        "3 of 7 answers stood in a code fence, which was set aside.",
        "3 of 7 answers are not one JSON object: a list of one object (2), cut short (1). Take the"
        " object out of its list, or ask for an object.",
    ]
    assert count_forms([read_answer(OBJECT)]).lines() == []
