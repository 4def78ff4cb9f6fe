"""What a trace's answer was made from: worked examples are left out, remarks are not."""

from __future__ import annotations

from typing import Any

import pytest

from offapi.data.traces import Trace

FIRST, SECOND = "Foo Ltd\n04/03/2026\nTotal 12.50", "Bar Ltd\n05/03/2026\nTotal 9.00"
ANSWER, OTHER = '{"vendor":"Foo Ltd"}', '{"vendor":"Bar Ltd"}'


def chat(*turns: str, last: dict[str, Any] | None = None) -> Trace:
    """Return a chat of "u:..." and "a:..." turns."""
    roles = {"u": "user", "a": "assistant"}
    messages = [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]
    return Trace("t", (*messages, *([last] if last else ())))


def call(arguments: str) -> dict[str, Any]:
    function = {"name": "Invoice", "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}


@pytest.mark.parametrize(
    ("turns", "document"),
    [
        ((f"u:{FIRST}", "a:Let me look.", f"a:{ANSWER}"), FIRST),
        ((f"u:{FIRST}", "a:Let me look.", "a:It is Foo.", f"a:{ANSWER}"), FIRST),
        ((f"u:{FIRST}", "a:Shall I?", "u:Go on.", f"a:{ANSWER}"), f"{FIRST}\nGo on."),
        (
            (f"u:{FIRST}", "a:It is from Foo.", "u:As JSON, please.", f"a:{ANSWER}"),
            f"{FIRST}\nAs JSON, please.",
        ),
        (
            (f"u:{FIRST}", f"a:{OTHER}", "u:1 validation error for Invoice", f"a:{ANSWER}"),
            f"{FIRST}\n1 validation error for Invoice",
        ),
        (("u:Read the invoice.", "a:Send it.", f"u:{FIRST}", f"a:{ANSWER}"),
         f"Read the invoice.\n{FIRST}"),
        # worked examples
        ((f"u:{SECOND}", f"a:{OTHER}", f"u:{FIRST}", f"a:{ANSWER}"), FIRST),
        ((f"u:{SECOND}", f"a:```json\n{OTHER}\n```", f"u:{FIRST}", f"a:{ANSWER}"), FIRST),
        ((f"u:{SECOND}", f"a:{OTHER}", f"u:{FIRST}", "a:I will read it.", f"a:{ANSWER}"), FIRST),
        (("u:It broke", 'a:{"kind":"a"}', "u:It is late", 'a:{"kind":"b"}'), "It is late"),
        (("u:Where is it?", "a:On its way.", "u:When will it come?", "a:On Friday."),
         "When will it come?"),
    ],
)  # fmt: skip
def test_document(turns: tuple[str, ...], document: str) -> None:
    assert chat(*turns).document == document


def test_examples_given_as_tool_calls_are_left_out() -> None:
    messages = (*chat(f"u:{SECOND}").messages, call(OTHER), {"role": "tool", "content": "ok"})
    trace = Trace("t", (*messages, {"role": "user", "content": FIRST}, call(ANSWER)))
    assert trace.document == FIRST
    agent = Trace("t", (*messages, {"role": "user", "content": FIRST}, *chat("a:Done.").messages))
    assert agent.document == f"{SECOND}\nok\n{FIRST}"


def test_a_remark_is_no_turn_of_its_own() -> None:
    assert chat(f"u:{FIRST}", "a:Let me look.", f"a:{ANSWER}").single_shot
    assert not chat(f"u:{FIRST}", f"a:{OTHER}", "u:Again.", f"a:{ANSWER}").single_shot
    tools = ({"type": "function"},)
    forced = Trace("t", (*chat(f"u:{FIRST}").messages, call(ANSWER)), tools)
    assert forced.single_shot
    assert not Trace("t", forced.messages, tools * 2).single_shot
