"""How calls are written and read, in the formats of real templates, in short forms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_llama

from offapi.chat.chat import Chat
from offapi.chat.tool_format import ToolFormat

USER = {"role": "user", "content": "Who?"}
PARAMETERS = {
    "type": "object",
    "properties": {"q": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["q"],
}
FUNCTION = {"name": "find", "description": "Find it.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": FUNCTION}]

QWEN = """\
{%- if tools %}{{ '<|turn|>system\\n' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{{ '<|end|>\\n' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|turn|>user' }}{% endif %}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|end|>\\n' }}{% endif %}
{%- else %}{{ '<|turn|>' + m.role + '\\n' + (m.content or '') }}
{%- for call in m.tool_calls or [] %}
{%- if (loop.first and m.content) or not loop.first %}{{ '\\n' }}{% endif %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson + '}\\n</tool_call>' }}
{%- endfor %}{{ '<|end|>\\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"""

Make = Callable[..., Chat]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_chat(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def make(folder: Path) -> Make:
    """Return what makes a chat of a template."""
    loaded = Chat.load(folder)

    def made(template: str) -> Chat:
        tokenizer = copy.copy(loaded.tokenizer)
        tokenizer.chat_template = template
        return replace(loaded, tokenizer=tokenizer)

    return made


def results(*ids: str, content: str = "ACME") -> list[dict[str, Any]]:
    return [{"role": "tool", "tool_call_id": i, "name": "find", "content": content} for i in ids]


FORMS = {"hermes": QWEN, "fallback": tiny_llama.TEMPLATE}


@pytest.mark.parametrize("name", FORMS)
def test_what_was_sampled_and_appended_is_what_the_template_writes(make: Make, name: str) -> None:
    chat = make(FORMS[name])
    form = ToolFormat.of(chat, TOOLS)
    assert form.name == name
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, USER]
    tokens, calls = form.prompt(messages), 0
    said = [
        'Let me look.\n<tool_call>\n{"name": "find", "arguments": {"q": "Züri", "n": 2}}\n</tool_call>',
        '<tool_call>\n{"name": "find", "arguments": {"q": "a}"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "find", "arguments": {}}\n</tool_call>',
    ]
    if name == "fallback":
        said = [text.replace("<tool_call>\n", "<tool_call>").replace("}\n<", "}<") for text in said]
    for text in said:
        sampled = chat.encode(f"{text}<|end|>")
        turn = form.read(sampled, calls + 1)
        assert not turn.malformed
        calls += len(turn.calls)
        answer = results(*(call.id for call in turn.calls), content="12 <|end|>")
        tokens += sampled + form.continuation(messages, turn, answer)
        messages += [turn.message(), *answer]
        assert tokens == form.prompt(messages)
    assert [call["id"] for call in messages[4]["tool_calls"]] == ["call00002", "call00003"]
    assert tokens.count(257) == form.prompt(messages[:2]).count(257) + 4


BROKEN = {
    '<tool_call>{"name": "find", "argu': "the call was cut off before its end",
    '<tool_call>{"name": "find", "arguments": {}}': "the call was cut off before its end",
    '<tool_call>{"name": "find", "argu</tool_call>': "its JSON does not end",
    '<tool_call>{"name": find}</tool_call>': "it is not valid JSON: Expecting value, line 1",
    "<tool_call>[1]</tool_call>": 'a call must be an object with "name"',
    '<tool_call>{"name": "find", "arguments": "x"}</tool_call>': '"arguments" must be an object',
    '<tool_call>{"name": "find", "arguments": {"n": NaN}}</tool_call>': "NaN is not a number",
    '<tool_call>{"name": "find", "arguments": {"q": "\\ud800"}}</tool_call>': "cannot be JSON",
    "<tool_call>" + "[" * 9999 + "</tool_call>": "nested too deeply",
    '<tool_call>{"name": "find", "arguments": {}} x</tool_call>': "</tool_call> must follow",
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_call_says_why_and_the_rest_is_read(make: Make, text: str) -> None:
    form = ToolFormat.of(make(QWEN), TOOLS)
    whole = '<tool_call>{"name": "find", "arguments": {"q": "</tool_call>"}}</tool_call>'
    turn = form.read(form.chat.encode(f"So: {whole}{text}"), 7)
    assert [(call.id, call.name, call.arguments) for call in turn.calls] == [
        ("call00007", "find", {"q": "</tool_call>"})
    ]
    (broken,) = turn.malformed
    assert (broken.text, BROKEN[text] in broken.why) == (text, True)
    assert turn.text == "So:"
    alone = form.read(form.chat.encode(text))
    assert not alone.final
    assert alone.message() == {"role": "assistant", "content": text}
    answered = form.continuation([USER], alone, results("none"))
    assert "ACME" in form.chat.text_of(answered)


def test_a_turn_without_calls_is_its_text(make: Make) -> None:
    form = ToolFormat.of(make(QWEN), TOOLS)
    turn = form.read(form.chat.encode('{"name": "find", "arguments": {}} <b><|end|>'))
    assert (turn.final, turn.text) == (True, '{"name": "find", "arguments": {}} <b>')
    thought = '<think>\nI could <tool_call>{"name": "find", "arguments": {}}</tool_call>'
    assert form.read(form.chat.encode(thought)).final
    called = form.read(form.chat.encode(f"{thought}</think>{thought.partition('could ')[2]}"))
    assert (called.text, len(called.calls)) == (f"{thought}</think>", 1)


def test_a_turn_that_was_cut_off_is_ended_first(make: Make) -> None:
    form = ToolFormat.of(make(QWEN), TOOLS)
    turn = form.read(form.chat.encode("<tool_call>"))
    asked = form.continuation([USER], turn, results("a"), cut_off=True)
    assert asked == (257, *form.continuation([USER], turn, results("a")))
