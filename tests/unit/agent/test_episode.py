"""A finished episode's answer."""

from __future__ import annotations

import pytest

from offapi.agent import AgentEpisode, AgentFinish

CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("finish", "last", "answer"),
    [
        ("stop", {"content": "42"}, "42"),
        ("turns", {"content": "42"}, ""),
        ("length", {"content": "4"}, ""),
        ("stop", {"content": "42", "tool_calls": [CALL]}, ""),
    ],
)
def test_only_a_last_turn_that_calls_nothing_is_an_answer(
    finish: AgentFinish, last: dict[str, object], answer: str
) -> None:
    messages = ({"role": "user", "content": "?"}, {"role": "assistant", **last})
    assert AgentEpisode(0, 0, (), (), messages, finish).text == answer
