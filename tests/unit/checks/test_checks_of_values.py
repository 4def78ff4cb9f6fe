"""Checks of an answer's values and form: ranges, dates, currencies, sums, text, tool calls."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offapi.checks import (
    Check,
    Context,
    adds_up,
    clean_characters,
    in_range,
    known_currency,
    length,
    no_repetition,
    not_before,
    not_future,
    one_of,
    own,
    pattern,
    repairable_json,
    tool_calls_fit,
)
from offapi.checks.fields import values_at
from offapi.checks.verdict import Answer, parse
from offapi.errors import ConfigError

TODAY = date(2026, 4, 2)
LINES = {
    "lines": [{"amount": 2.5, "unit": "kg"}, {"amount": -1, "unit": None}, {"unit": "g"}],
    "total": 9.99,
}


def score(check: Check, value: Any, document: str = "") -> float:
    """Return the score of the answer `value`, or of that text."""
    verdict = check(
        document,
        parse(value if isinstance(value, str) else orjson.dumps(value).decode()),
        Context(),
    )
    assert verdict.reason
    return verdict.score


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("total", [9.99]),
        ("lines[].amount", [2.5, -1]),
        ("lines[].unit", ["kg", "g"]),
        ("lines[]", LINES["lines"]),
        ("lines", [LINES["lines"]]),
        ("none", []),
        ("total.none", []),
        ("total[]", []),
        ("lines.amount", []),
    ],
)
def test_a_path_finds_its_values(path: str, found: list[Any]) -> None:
    assert values_at(LINES, path) == found


@pytest.mark.parametrize("path", ["", "a..b", "[]", "a[0]", "a[].", ".a", "a[]b"])
def test_a_bad_path_is_refused_when_the_check_is_made(path: str) -> None:
    makers: list[Callable[[], Check]] = [
        lambda: in_range(path, 0), lambda: adds_up((path,)), lambda: adds_up(total=path), lambda: pattern(path, "x"),
    ]  # fmt: skip
    for make in makers:
        with pytest.raises(ConfigError, match="not a path"):
            make()


EVERY = (
    in_range("a", 0), one_of("a", 1), not_future("a"), not_before("a", "2020-01-01"), known_currency("a"),
    pattern("a", "x"), adds_up(("a",)),
)  # fmt: skip


@pytest.mark.parametrize("check", EVERY)
def test_a_field_check_skips_absent_values_not_broken_answers(check: Check) -> None:
    assert score(check, {}) == score(check, {"a": None}) == 1.0
    verdict = check("", parse("nonsense"), Context())
    assert (verdict.score, verdict.reason) == (0.0, parse("nonsense").error)
    assert score(check, {"a": [], "total": 1}) == 0.0


@pytest.mark.parametrize(
    ("check", "value", "wanted"),
    [
        (in_range("total", 0, 10), 0, 1.0),
        (in_range("total", 0, 10), 10, 1.0),
        (in_range("total", 0, 10), 10.01, 0.0),
        (in_range("total", 0, 10), -0.01, 0.0),
        (in_range("total", low=5), 1e9, 1.0),
        (in_range("total", high=5), 6, 0.0),
        (in_range("total", 0), "5", 0.0),
        (in_range("total", 0), True, 0.0),
        (one_of("total", "kg", "g"), "kg", 1.0),
        (one_of("total", "kg", "g"), "KG", 0.0),
        (one_of("total", 1, 0), 1, 1.0),
        (one_of("total", 1, 0), True, 0.0),
        (one_of("total", "a"), ["a"], 0.0),
        (not_future("total", TODAY), "2026-04-02", 1.0),
        (not_future("total", "2026-04-02"), "2026-04-03", 0.0),
        (not_future("total", TODAY), "02/04/2026", 0.0),
        (not_future("total", TODAY), 20260402, 0.0),
        (not_before("total", TODAY), "2026-04-02", 1.0),
        (not_before("total", "2026-04-02"), "2026-04-01", 0.0),
        (known_currency("total"), "EUR", 1.0),
        (known_currency("total"), "eur", 0.0),
        (known_currency("total"), "RM", 0.0),
        (known_currency("total"), "XXX", 0.0),
        (known_currency("total"), 978, 0.0),
        (pattern("total", r"[A-Z]{2}\d+"), "AB12", 1.0),
        (pattern("total", r"[A-Z]{2}\d+"), "AB12x", 0.0),
        (pattern("total", r"[A-Z]{2}\d+"), "xAB12", 0.0),
        (pattern("total", r"\d+"), 12, 0.0),
    ],
)
def test_a_value_is_possible_or_not(check: Check, value: object, wanted: float) -> None:
    assert score(check, {"total": value}) == wanted


def test_several_values_score_by_their_share() -> None:
    assert score(in_range("lines[].amount", 0), LINES) == 0.5
    verdict = in_range("lines[].amount", 0)("", Answer("", LINES), Context())
    assert verdict.reason == "lines[].amount: -1 is below 0"


def test_today_is_the_day_of_grading() -> None:
    today, tomorrow = date.today(), date.today() + timedelta(days=1)
    assert score(not_future("d"), {"d": today.isoformat()}) == 1.0
    assert score(not_future("d"), {"d": (tomorrow + timedelta(days=1)).isoformat()}) == 0.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: in_range("a"), lambda: in_range("a", 2, 1), lambda: one_of("a"), lambda: not_before("a", "2020"),
        lambda: not_future("a", "x"), lambda: pattern("a", "("), lambda: length(-1), lambda: length(5, 4),
        lambda: adds_up(()), lambda: adds_up("lines[].amount"), lambda: adds_up(tolerance=-1), lambda: no_repetition(1),
        lambda: repairable_json(2),
    ],
)  # fmt: skip
def test_a_check_with_senseless_arguments_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.what


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (
            {"lines": [{"amount": 1.1}, {"amount": 2.2}], "delivery": 3, "tax": 0.5, "total": 6.8},
            1.0,
        ),
        ({"lines": [{"amount": 1.1}, {"amount": 2.2}], "delivery": None, "total": 3.3}, 1.0),
        ({"lines": [{"amount": 1.1}, {"amount": 2.2}], "total": 3.31}, 1.0),
        ({"lines": [{"amount": 1.1}, {"amount": 2.2}], "total": 3.32}, 0.0),
        ({"lines": [{"amount": 1.1}, {"amount": "2.2"}], "total": 3.3}, 0.0),
        ({"lines": [{"amount": 1.1}], "total": "1.1"}, 0.0),
        ({"lines": [{"amount": 1.1}], "total": None}, 1.0),
        ({"lines": [], "total": 5}, 1.0),
        ({"lines": [{"amount": 5}, {"amount": -1}], "total": 4}, 1.0),
    ],
)
def test_parts_add_up(value: dict[str, Any], wanted: float) -> None:
    assert score(adds_up(), value) == wanted


def test_sums_take_any_paths_and_tolerance() -> None:
    value = {
        "orders": [{"items": [{"p": 1}, {"p": 2}]}, {"items": [{"p": 3}]}],
        "sum": {"net": 6.4},
    }
    assert score(adds_up(("orders[].items[].p",), "sum.net", tolerance=0.5), value) == 1.0
    assert score(adds_up(("orders[].items[].p",), "sum.net"), value) == 0.0
    assert score(adds_up(("one",), "totals[]"), {"one": 1, "totals": [1]}) == 1.0
    assert (
        score(adds_up(("one",), "totals[]"), {"one": 1, "totals": [1, 2]}) == 0.0
    )  # which of them?


@given(st.lists(st.integers(-(10**7), 10**7), min_size=1, max_size=30))
def test_cents_always_add_up(cents: list[int]) -> None:
    value = {"lines": [{"amount": cent / 100} for cent in cents], "total": sum(cents) / 100}
    assert score(adds_up(tolerance=0.0), value) == 1.0
    assert score(adds_up(tolerance=0.0), {**value, "total": (sum(cents) + 1) / 100}) == 0.0


@pytest.mark.parametrize(
    "text",
    ['{"a":"Café Zoë, 12 €"}', '{"a":"株式会社アクメ (ACME)"}', '{"a":"Владимир"}', '{"a":"5 kΩ ±1 % “ok” – naïve"}',
     '{"a":"tab\\there\\nline"}',
     '{"a":"👍🏽 e\u0301"}', '{"a":"Ã la carte"}', '{"a":"Αθήνα–Paris"}', "", '{\n  "a": 1\n}'],
)  # fmt: skip
def test_what_people_write_is_clean(text: str) -> None:
    assert clean_characters("", parse(text), Context()).score == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a":"CafÃ©"}', "'é'"),
        ('{"a":"Â£12"}', "'£'"),
        ('{"a":"itâ€™s"}', "'’'"),
        ('{"a":"caf\ufffd"}', "U+FFFD"),
        ('{"a":"x\\u0000y"}', "U+0000"),
        ('{"a":"x\\u200by"}', "U+200B"),
        ("\x1b[0m", "U+001B"),
        ('{"a":"\ue000"}', "U+E000"),
        ('{"a":"\u202eevil"}', "U+202E"),
        ('{"a":"Аcme Ltd, Pаypal"}', "mixes alphabets"),
        ('{"\\u0000":1}', "U+0000"),
        ("\ud800", "U+D800"),
    ],
)
def test_what_machines_leave_behind_is_not_clean(text: str, said: str) -> None:
    verdict = clean_characters("", parse(text), Context())
    assert (verdict.score, said in verdict.reason) == (0.0, True), verdict


def test_a_mixed_word_of_the_document_is_accepted() -> None:
    assert clean_characters("NАPPY Ltd", parse('{"a":"NАPPY"}'), Context()).score == 1.0


def test_length_counts_characters_of_the_whole_answer() -> None:
    assert [score(length(2, 4), text) for text in ("", "1", "12", "éééé", "12345")] == [
        0.0,
        0.0,
        1.0,
        1.0,
        0.0,
    ]
    assert score(length(), "") == 0.0
    assert score(length(0), "") == 1.0


@pytest.mark.parametrize(
    "loop",
    [
        "a" * 40,
        "ab" * 20,
        "no no, " * 8,
        "the total is 5.00 and " * 8,
        "x" * 97 + "yz!",
        '{"a":1},\n' * 12,
    ],
)
def test_a_loop_is_found_anywhere(loop: str) -> None:
    loop = loop if len(loop) != 100 else loop * 8
    for before in ("", '{"vendor":"Acme Ltd","note":"', "0123456789" * 2 + "q"):
        for after in ("", '"}', " and so on until the end"):
            assert score(no_repetition(), before + loop + after) == 0.0, (before, loop, after)
            assert score(no_repetition(), before + loop + after, document=f"--{loop}--") == 1.0


@pytest.mark.parametrize(
    "text",
    ["a" * 39, "the total is 5.00 and " * 7,
     '{"lines":[' + ",".join(f'{{"name":"item {i}"}}' for i in range(99)) + "]}",
     " ".join(map(str, range(500)))],
)  # fmt: skip
def test_similar_text_is_not_a_loop(text: str) -> None:
    assert score(no_repetition(), text) == 1.0


@given(
    st.text(min_size=1, max_size=100),
    st.integers(8, 20),
    st.text(max_size=30),
    st.text(max_size=30),
)
def test_any_round_repeated_is_found(piece: str, rounds: int, before: str, after: str) -> None:
    loop = piece * rounds
    found = score(no_repetition(), f"{before}{loop}{after}") if len(loop) >= 40 else 0.0
    assert found == 0.0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"a":1}', 1.0),
        ('{"a":1', 0.5),
        ('```json\n{"a":1}\n```', 0.5),
        ("{'a':1,}", 0.5),
        ('Here you are: {"a":1}', 0.5),
        ("", 0.0),
        ("no idea", 0.0),
        ("{}", 1.0),
        ("{", 0.0),
        ("[1]", 0.0),
        ('[{"a":1}]', 0.0),
    ],
)
def test_repaired_json_has_its_own_score(text: str, wanted: float) -> None:
    assert score(repairable_json(), text) == wanted
    assert score(repairable_json(0.0), text) == (1.0 if wanted == 1.0 else 0.0)


@given(st.text(alphabet='{}[]":,a1\\ \n', max_size=60))
def test_repairing_never_raises(text: str) -> None:
    assert score(repairable_json(), text) in (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("said", "wanted", "reason"),
    [
        (True, 1.0, "judge says 1"),
        (False, 0.0, "judge says 0"),
        (0.25, 0.25, "judge says 0.25"),
        ((0.5, "half"), 0.5, "half"),
        ((False, "no"), 0.0, "no"),
    ],
)
def test_a_users_function_is_a_check(said: Any, wanted: float, reason: str) -> None:
    def judge(document: str, value: Any) -> Any:
        assert (document, value) == ("doc", {"a": 1})
        return said

    verdict = own(judge)("doc", parse('{"a":1}'), Context())
    assert (verdict.score, verdict.reason) == (wanted, reason)
    assert own(judge)("doc", parse("nonsense"), Context()).score == 0.0


@pytest.mark.parametrize("said", [None, "yes", (1, 2), (1,), [1], {"score": 1}])
def test_a_users_function_that_returns_no_score_is_an_error(said: Any) -> None:
    with pytest.raises(TypeError, match="must return"):
        own(lambda document, value: said)("", parse("{}"), Context())


TOOLS = [
    {"type": "function", "function": {"name": "find", "parameters": {
        "type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"], "additionalProperties": False}}},
    {"type": "function", "function": {"name": "now"}},
]  # fmt: skip


def call(name: str, arguments: str, id: str | None = "1") -> dict[str, Any]:
    made: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return made | ({"id": id} if id else {})


def turn(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def result(id: str | None = "1") -> dict[str, Any]:
    return {"role": "tool", "content": "x"} | ({"tool_call_id": id} if id else {})


ASKED, DONE = {"role": "user", "content": "?"}, {"role": "assistant", "content": "{}"}


@pytest.mark.parametrize(
    ("messages", "wanted", "said"),
    [
        ([ASKED, DONE], 1.0, "no tool"),
        ([ASKED, turn(call("find", '{"q":"a"}')), result(), DONE], 1.0, "every"),
        ([ASKED, turn(call("find", '{"q":"a"}', None)), result(None), DONE], 1.0, "every"),
        (
            [
                ASKED,
                turn(call("now", "{}"), call("find", '{"q":"a"}', "2")),
                result("2"),
                result(),
                DONE,
            ],
            1.0,
            "every",
        ),
        ([ASKED, turn(call("now", "")), result(), DONE], 1.0, "every"),
        (
            [ASKED, turn(call("find", '{"q":"a"}'))],
            1.0,
            "every",
        ),  # the last turn waits for its result
        ([ASKED, turn(call("fnid", '{"q":"a"}')), result(), DONE], 0.0, "no such tool"),
        ([ASKED, turn(call("find", '{"q":5}')), result(), DONE], 0.0, "'q'"),
        ([ASKED, turn(call("find", "{}")), result(), DONE], 0.0, "required"),
        ([ASKED, turn(call("find", '{"q":"a"')), result(), DONE], 0.0, "not JSON"),
        ([ASKED, turn(call("find", '["a"]')), result(), DONE], 0.0, "array"),
        ([ASKED, turn(call("find", '{"q":"a"}')), DONE], 0.0, "no result"),
        ([ASKED, turn(call("find", '{"q":"a"}')), result("9"), DONE], 0.0, "no result"),
        (
            [ASKED, turn(call("now", "{}", None), call("now", "{}", None)), result(None), DONE],
            0.5,
            "call 2",
        ),
        (
            [ASKED, turn(call("now", "{}")), result(), turn(call("no", "{}")), result(), DONE],
            0.5,
            "call 2",
        ),
    ],
)
def test_tool_calls_fit_their_tools_and_are_answered(
    messages: list[Any], wanted: float, said: str
) -> None:
    verdict = tool_calls_fit("", parse("{}"), Context(messages=messages, tools=TOOLS))
    assert (verdict.score, said in verdict.reason) == (wanted, True), verdict


def test_tools_may_be_written_flat_and_a_bad_schema_is_an_error() -> None:
    messages = [ASKED, turn(call("f", "{}")), result(), DONE]
    assert (
        tool_calls_fit("", parse("{}"), Context(messages=messages, tools=[{"name": "f"}])).score
        == 1.0
    )
    bad = {"name": "f", "parameters": {"type": "objekt"}}
    with pytest.raises(ValueError, match="not valid"):
        tool_calls_fit("", parse("{}"), Context(messages=messages, tools=[bad]))
