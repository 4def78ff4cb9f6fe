"""Messages and tools of a request: read as OpenAI has them, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from offapi.serve.chat_messages import read_messages, read_tools
from offapi.serve.errors import ApiError
from offapi.serve.limits import ServerLimits

LIMITS = ServerLimits()
USER = {"role": "user", "content": "Who is paid?"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"a": 1}'}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "Acme"}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def refused(messages: list[Any]) -> str:
    with pytest.raises(ApiError) as error:
        read_messages(messages, LIMITS)
    return str(error.value.param)


def test_a_chat_with_tools_is_read() -> None:
    read = read_messages([USER, ASKED, RESULT], LIMITS)
    assert read[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert read[2] == {**RESULT, "name": "find"}


def test_what_does_not_fit_is_refused_by_name() -> None:
    assert refused([USER, RESULT]) == "messages[1].tool_call_id"
    assert refused([USER, ASKED, RESULT, RESULT]) == "messages[3].tool_call_id"
    assert refused([{**USER, "tool_calls": [CALL]}]) == "messages[0].tool_calls"
    function = {"name": "find", "arguments": "{"}
    torn = {**ASKED, "tool_calls": [{**CALL, "function": function}]}
    assert refused([USER, torn]) == "messages[1].tool_calls"
    assert refused([{**ASKED, "tool_calls": None}]) == "messages[0].content"


def test_tools_are_functions_with_a_schema() -> None:
    (tool,) = read_tools([TOOL], None, LIMITS)
    assert tool["function"] == {
        "name": "find",
        "description": "",
        "parameters": {"type": "object"},
    }
    assert read_tools([TOOL], "none", LIMITS) == ()


@pytest.mark.parametrize(
    ("tools", "choice", "param"),
    [
        ([{"type": "web_search"}], None, "tools[0]"),
        ([{"type": "function", "function": {"name": "a b"}}], None, "tools[0].function.name"),
        (
            [{"type": "function", "function": {"name": "a", "parameters": {"type": 5}}}],
            None,
            "tools[0].function.parameters",
        ),
        ([{**TOOL, "function": {"name": "a", "strict": True}}], None, "tools[0].function"),
        ([TOOL, TOOL], None, "tools"),
        ([TOOL] * 200, None, "tools"),
        ([TOOL], "required", "tool_choice"),
    ],
)
def test_other_tools_are_refused(tools: list[Any], choice: Any, param: str) -> None:
    with pytest.raises(ApiError) as error:
        read_tools(tools, choice, LIMITS)
    assert error.value.param == param
