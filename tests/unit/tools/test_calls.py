"""A turn and its message."""

from __future__ import annotations

import json

from offapi.tools import MalformedCall, ToolCall, Turn


def test_a_turn_is_a_message_of_openais_shape() -> None:
    message = Turn("Let me look.", (ToolCall("call_1", "find", {"name": "Süd"}),)).message()
    function = message["tool_calls"][0]["function"]
    assert message["content"] == "Let me look."
    assert message["tool_calls"][0]["id"] == "call_1"
    assert (function["name"], json.loads(function["arguments"])) == ("find", {"name": "Süd"})


def test_what_was_meant_as_a_call_stays_in_the_message() -> None:
    turn = Turn("", malformed=(MalformedCall("<tool_call>{", "not JSON"),))
    assert turn.message() == {"role": "assistant", "content": "<tool_call>{"}
    assert not turn.final
    assert Turn("42").final
