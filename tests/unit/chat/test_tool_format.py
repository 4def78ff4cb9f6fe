"""How calls are written and read, in the formats of real templates, in short forms."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import tool_templates
from tool_templates import FORMS

from offapi.chat.chat import Chat
from offapi.chat.tool_format import ToolFormat
from offapi.errors import ConfigError

USER = {"role": "user", "content": "Who?"}
PARAMETERS = {
    "type": "object",
    "properties": {
        "q": {"type": "string"},
        "n": {"type": "integer"},
        "within": {"type": "object"},
    },
    "required": ["q"],
}
FUNCTION = {"name": "find", "description": "Find it.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": FUNCTION}]


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Chat]:
    """Return a chat of each family's template."""
    return tool_templates.chats(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def form(chats: dict[str, Chat]) -> ToolFormat:
    return ToolFormat.of(chats["hermes"], TOOLS)


def results(*ids: str, content: str = "ACME") -> list[dict[str, Any]]:
    return [{"role": "tool", "tool_call_id": i, "name": "find", "content": content} for i in ids]


def called(*arguments: dict[str, Any], first: int = 1) -> dict[str, Any]:
    """Return a turn that calls the tool once with each of `arguments`."""
    calls = [
        {
            "id": f"call{n:05d}",
            "type": "function",
            "function": {"name": "find", "arguments": json.dumps(value, ensure_ascii=False)},
        }
        for n, value in enumerate(arguments, first)
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def sampled(chat: Chat, messages: list[Any], turn: dict[str, Any]) -> tuple[int, ...]:
    """Return the tokens of `turn` as the template writes it after `messages`, with its end."""
    before = chat.prompt(messages, TOOLS)
    after = chat.encode(chat.render("", [*messages, turn], TOOLS, generate=False))
    assert after[: len(before)] == before
    ends = (n for n in range(len(before), len(after)) if after[n] in chat.stop_ids)
    return after[len(before) : next(ends) + 1]


NESTED: dict[str, Any] = {
    "q": "Zü \"東\" {b}, 'c'\\",
    "n": 2,
    "within": {"km": [1, 2.5], "open": True},
}
WRITTEN = {  # a call as the family's template writes it
    "hermes": '<tool_call>\n{"name": "find", "arguments": {"q": "a", "n": 2}}\n</tool_call><|end|>',
    "qwen-xml": "<tool_call>\n<function=find>\n<parameter=q>\na\n</parameter>\n<parameter=n>\n2\n"
    "</parameter>\n</function>\n</tool_call><|end|>",
    "llama": '{"name": "find", "parameters": {"q": "a", "n": 2}}<|end|>',
    "mistral": '[TOOL_CALLS] [{"name": "find", "arguments": {"q": "a", "n": 2}, "id": "call00001"}]<|end|>',
    "mistral, names": '[TOOL_CALLS]find[ARGS]{"q": "a", "n": 2}<|end|>',
    "gemma": '<|tool_call>call:find{n:2,q:<|"|>a<|"|>}<tool_call|><|tool_response>',
    "functiongemma": "<start_function_call>call:find{n:2,q:<escape>a<escape>}<end_function_call>"
    "<start_function_response>",
    "gpt-oss": ' to=functions.find<|channel|>commentary json<|message|>{"q": "a", "n": 2}<|call|>',
    "lfm": "<|tool_call_start|>[find(q='a', n=2)]<|tool_call_end|><|end|>",
    "fallback": '<tool_call>{"name": "find", "arguments": {"q": "a", "n": 2}}</tool_call><|end|>',
}


@pytest.mark.parametrize("family", FORMS)
def test_what_was_sampled_and_appended_is_what_the_template_writes(
    chats: dict[str, Chat], family: str
) -> None:
    chat = chats[family]
    form = ToolFormat.of(chat, TOOLS)
    assert form.name == family.partition(",")[0]
    assert form.several == (form.name not in ("llama", "gpt-oss"))
    assert form.rewrites_history == (family == "hermes, Qwen 3")
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, USER]
    tokens, calls = form.prompt(messages), 0
    rounds: list[list[dict[str, Any]]] = [
        [{"q": "a", "n": 2}],
        [NESTED, {"q": "b"}][: 1 + form.several],
    ]
    for arguments in rounds:
        turn = called(*arguments, first=calls + 1)
        if form.rewrites_history:  # the template alone would write no thinking in earlier turns
            turn["reasoning_content"] = "Hm."
        said = sampled(chat, messages, turn)
        if not calls and family in WRITTEN:
            assert chat.text_of(said) == WRITTEN[family]
        read = form.read(said, calls + 1)
        assert [dict(call.arguments) for call in read.calls] == arguments
        assert read.message()["tool_calls"][0]["id"] == turn["tool_calls"][0]["id"]
        assert not read.malformed
        calls += len(read.calls)
        answer = results(*(call.id for call in read.calls), content="12 <|end|>")
        tokens += said + form.continuation(messages, read, answer)
        messages += [turn, *answer]
        assert tokens == form.prompt(messages)
    assert tokens[: len(form.prompt(messages[:2]))] == form.prompt(messages[:2])


@pytest.mark.parametrize("family", FORMS)
def test_broken_calls_are_answered_in_every_family(chats: dict[str, Chat], family: str) -> None:
    """The answer has no id and no name; a good call of the same turn has both."""
    chat = chats[family]
    form = ToolFormat.of(chat, TOOLS)
    said = chat.text_of(sampled(chat, [USER], called({"q": "a"})))
    cut = form.read(chat.encode(said[: len(said) // 2 + 8]))
    assert (len(cut.malformed), cut.calls, cut.final) == (1, (), False)
    why = {"role": "tool", "content": "Error: cut off"}
    for turn, answers in (
        (cut, [why]),
        (form.read(chat.encode(said)), [*results("call00001"), why]),
    ):
        text = chat.text_of(form.continuation([USER], turn, answers))
        assert text.count("Error: cut off") == 1
        assert ("ACME" in text) == (turn is not cut)


def test_encoding_the_decoded_chat_again_drifts_from_what_was_sampled(
    chats: dict[str, Chat],
) -> None:
    """A model may spell a word with other tokens than the tokenizer; only appending keeps them."""
    chat = replace(chats["hermes"], tokenizer=copy.deepcopy(chats["hermes"].tokenizer))
    spelled = chat.encode(WRITTEN["hermes"])
    chat.tokenizer.add_tokens(["find"])
    form = ToolFormat.of(chat, TOOLS)
    assert chat.text_of(spelled) == WRITTEN["hermes"]
    assert len(chat.encode(WRITTEN["hermes"])) < len(spelled)
    turn, asked = form.read(spelled), form.prompt([USER])
    appended = asked + spelled + form.continuation([USER], turn, results("call00001"))
    encoded = form.prompt([USER, turn.message(), *results("call00001")])
    assert chat.text_of(appended) == chat.text_of(encoded)
    assert appended != encoded
    assert appended[: len(asked) + len(spelled)] == asked + spelled


def test_an_agents_turns_stay_as_generated_unless_its_history_is_split(
    chats: dict[str, Chat],
) -> None:
    """In training as in rollouts, and where a client sends the whole chat again."""
    chat = chats["hermes, Qwen 3"]
    form = ToolFormat.of(chat, TOOLS)
    answer = {"role": "assistant", "content": "ACME"}
    said: list[Any] = [USER, called({"q": "a"}), *results("call00001"), answer]
    first = sampled(chat, [USER], said[1])
    assert chat.text_of(first).startswith("<think>\n\n</think>\n\n<tool_call>")
    rolled = form.prompt([USER]) + first
    rolled += form.continuation([USER], form.read(first), results("call00001"))
    assert form.prompt(said[:3]) == rolled
    (episode,) = chat.episodes("a", said, TOOLS)
    assert episode.tokens[: len(rolled)] == rolled
    assert [chat.text_of(each.tokens) for each in episode.segments if each.sampled] == [
        chat.text_of(first),
        "<think>\n\n</think>\n\nACME<|end|>",
    ]
    split = chat.with_options({"history": "split"})
    assert "stay as they were generated" in chat.say_history()
    assert "in an episode each" in split.say_history()
    assert chats["hermes"].say_history() == ""
    assert [each.id for each in split.episodes("a", said, TOOLS)] == ["a", "a#2"]
    rewritten = split.text_of(split.prompt(said[:3], TOOLS))
    assert rewritten == split.render("", said[:3], TOOLS, generate=True)
    assert "<think>" not in rewritten
    with pytest.raises(ConfigError, match="turns are appended, but"):
        ToolFormat.of(split, TOOLS)
    with pytest.raises(ConfigError, match=r'must be "append" or "split", got \'cut\''):
        chat.with_options({"history": "cut"})


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
def test_a_broken_call_says_why_and_the_rest_is_read(form: ToolFormat, text: str) -> None:
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


def test_a_turn_without_calls_is_its_text(form: ToolFormat) -> None:
    turn = form.read(form.chat.encode('{"name": "find", "arguments": {}} <b><|end|>'))
    assert (turn.final, turn.text) == (True, '{"name": "find", "arguments": {}} <b>')
    thought = '<think>\nI could <tool_call>{"name": "find", "arguments": {}}</tool_call>'
    assert form.read(form.chat.encode(thought)).final
    called = form.read(form.chat.encode(f"{thought}</think>{thought.partition('could ')[2]}"))
    assert (called.text, len(called.calls)) == (f"{thought}</think>", 1)


def test_a_turn_that_was_cut_off_is_ended_first(form: ToolFormat) -> None:
    turn = form.read(form.chat.encode("<tool_call>"))
    asked = form.continuation([USER], turn, results("a"), cut_off=True)
    assert asked == (257, *form.continuation([USER], turn, results("a")))


def test_a_model_of_one_call_a_turn_is_held_to_it(chats: dict[str, Chat]) -> None:
    form = ToolFormat.of(chats["llama"], TOOLS)
    one = '{"name": "find", "parameters": {"q": "a"}}'
    turn = form.read(form.chat.encode(f"<|python_tag|>{one}; {one}<|end|>"))
    assert [dict(call.arguments) for call in turn.calls] == [{"q": "a"}]
    assert [broken.why for broken in turn.malformed] == ["a turn can have one call only"]


ANSWERS = {  # of a template that writes calls as bare JSON: how many calls are read, broken ones too
    '{"name": "ACME", "total": 4}': (0, 0),
    '{"name": "ACME", "parameters": {}}': (1, 0),
    '{"name": "find", "parameters": {"q": 1}} ': (1, 0),
    '{"name": "find", "arguments": {"q": 1}}': (0, 1),
    '{"name": "find", "para': (0, 1),
    '{"name": "fin': (0, 0),
    "<|python_tag|>print(1)": (0, 1),
    'I call {"name": "find", "parameters": {}}': (0, 0),
    "": (0, 0),
}


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_in_json_is_not_a_call(chats: dict[str, Chat], text: str) -> None:
    form = ToolFormat.of(chats["llama"], TOOLS)
    turn = form.read(form.chat.encode(text))
    assert (len(turn.calls), len(turn.malformed)) == ANSWERS[text]


@pytest.mark.parametrize("family", FORMS)
def test_nothing_that_is_read_raises(chats: dict[str, Chat], family: str) -> None:
    """Every beginning of a turn, and parts of it in disorder, are calls, broken ones or text."""
    form = ToolFormat.of(chats[family], TOOLS)
    said = sampled(form.chat, [USER], called(NESTED))
    turns = [said[:n] for n in range(0, len(said), 3)]
    turns += [said[:n] + said[-m:] for n in range(0, 60, 7) for m in range(1, 60, 7)]
    text = form.chat.text_of(said)
    turns += [form.chat.encode(text.replace("{", deep * 3000)) for deep in ("{", "{a:")]
    turns += [form.chat.encode(text * 3)]
    for tokens in turns:
        read = form.read(tokens)
        assert read.final or all(broken.why and broken.text for broken in read.malformed)
        assert read.message()["role"] == "assistant"
