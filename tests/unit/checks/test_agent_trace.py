"""Checks of an agent's whole trace."""

from __future__ import annotations

import json
from typing import Any

import pytest

from offapi.checks import (
    Answer,
    Context,
    from_tools,
    no_repeated_calls,
    supported,
    tool_used,
)

MATCH: dict[str, Any] = {"vendor": "text", "date": "date", "total": "number"}
DOCUMENT = "OLDHURST PHARM\n2026-01-07\nTOTAL 338.97"
ANSWER = {"vendor": 'Oldhurst "Süd" Pharmacy PLC', "date": "2026-01-07", "total": 338.97}


def call(id: str, name: str, **arguments: object) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": id, "type": "function", "function": function}],
    }


def result(id: str, value: object) -> dict[str, Any]:
    content = value if isinstance(value, str) else json.dumps(value)
    return {"role": "tool", "tool_call_id": id, "content": content}


FOUND = (
    call("1", "search", query="OLDHURST PHARM"),
    result("1", [{"id": 627, "name": ANSWER["vendor"]}]),
)


def grade(check: Any, *messages: dict[str, Any], **changed: object) -> Any:
    value = {**ANSWER, **changed}
    answer = Answer(json.dumps(value), value)
    return check(DOCUMENT, answer, Context(match=MATCH, messages=messages))


def test_a_tool_was_used_when_it_answered() -> None:
    assert grade(tool_used("search"), *FOUND).score == 1.0
    half = grade(tool_used("search", "get"), *FOUND)
    assert (half.score, half.reason) == (0.5, "not used: get")
    failed = (FOUND[0], result("1", "Error: the register is gone"))
    assert grade(tool_used("search"), *failed).score == 0.0
    assert grade(tool_used("search"), FOUND[0]).score == 0.0  # without a result


def test_values_are_supported_by_results_or_the_document() -> None:
    assert grade(from_tools("vendor"), *FOUND).score == 1.0
    assert grade(supported, *FOUND).score == 1.0
    without = grade(supported)
    assert (without.score, without.not_found) == (pytest.approx(2 / 3), ("vendor",))
    assert grade(from_tools("vendor"), *FOUND, vendor="OLDHURST PHARM").score == 0.0
    part = grade(from_tools("vendor"), *FOUND, vendor="Oldhurst Süd Pharmacy")
    assert part.score == 0.0  # a part of a name is another name
    assert grade(from_tools("vendor"), *FOUND, vendor="oldhurst süd pharmacy plc").score == 1.0
    assert grade(from_tools("vendor", "total"), *FOUND).score == 0.5
    assert grade(from_tools("vendor"), *FOUND, vendor=None).score == 1.0


def test_an_error_that_repeats_the_models_words_supports_nothing() -> None:
    echoed = (
        call("1", "search", query=ANSWER["vendor"]),
        result("1", f"Error: nothing is like {ANSWER['vendor']}"),
    )
    assert grade(from_tools("vendor"), *echoed).score == 0.0


def test_a_call_repeats_another_however_it_is_written() -> None:
    again = call("2", "search", query="OLDHURST PHARM")
    again["tool_calls"][0]["function"]["arguments"] = '{ "query":"OLDHURST PHARM"}'
    verdict = grade(no_repeated_calls, *FOUND, again, result("2", []))
    assert (verdict.score, verdict.reason) == (0.5, "1 call repeats an earlier one")
    other = call("2", "search", query="OLDHURST")
    assert grade(no_repeated_calls, *FOUND, other, result("2", [])).score == 1.0


def test_an_answer_without_an_object_is_not_supported() -> None:
    bare = Answer("no", None, "not JSON")
    assert supported(DOCUMENT, bare, Context(match=MATCH)).score == 0.0


@pytest.mark.parametrize("check", [tool_used, from_tools])
def test_names_are_needed(check: Any) -> None:
    with pytest.raises(ValueError, match="needs the name"):
        check()
