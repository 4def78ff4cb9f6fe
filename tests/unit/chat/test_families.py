"""What the templates of real families do to turns, tools, thinking and dates, in short forms."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import tiny_llama

from offapi.chat.abilities import try_abilities
from offapi.chat.chat import Chat
from offapi.chat.cut_off import cut_off_advice
from offapi.chat.template_options import CLOCK
from offapi.errors import ConfigError, DataError, ModelError

USER, ANSWER = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "four"}
FUNCTION = {"name": "find", "arguments": '{"q": "ACME"}'}
CALL = {"id": "call00001", "type": "function", "function": FUNCTION}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
FOUND = {"role": "tool", "tool_call_id": "call00001", "name": "find", "content": "12"}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
THOUGHT = {**ANSWER, "reasoning_content": "two and two"}

# Llama 3, Gemma 3, LFM 2 and Cohere write a turn's text and drop its calls, and know no tools.
LLAMA_3 = """\
{%- for message in messages %}<|turn|>{{ message['role'] }}

{{ message['content'] | trim }}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|turn|>assistant

{% endif %}"""
GEMMA_3 = """\
{%- for message in messages %}
{%- if message.role in ('system', 'tool') %}{{ raise_exception('roles must alternate') }}{% endif %}
<|turn|>{{ 'model' if message.role == 'assistant' else message.role }}
{{ message.content | trim }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|turn|>model
{% endif %}"""
LFM_2 = """\
{%- for message in messages %}{{ '<|turn|>' + message['role'] + '\\n' }}
{%- set content = message['content'] %}{% if content is not string %}{% set content = content | tojson %}
{%- endif %}{{ content + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"""
COHERE = """\
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '<|turn|>USER' + message.content.strip() + '<|end|>' }}
{%- elif message.role == 'system' %}{{ '<|turn|>SYSTEM' + message.content + '<|end|>' }}
{%- elif message.role == 'assistant' %}{{ '<|turn|>CHATBOT' + message.content.strip() + '<|end|>' }}
{%- endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|turn|>CHATBOT' }}{% endif %}"""
LLAMA_2 = """\
{%- for message in messages %}{% if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}
{%- elif message.role == 'assistant' %}{{ ' ' + (message.content or '') + ' <|end|>' }}{% endif %}{% endfor %}"""

# Qwen 3: thinking before the last question is dropped, and none is written as an empty one.
QWEN_3 = """\
{%- set last = namespace(user=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}
{%- if tools %}<|turn|>system
{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|end|>
{% endif %}
{%- for m in messages %}
{%- if m.role == 'assistant' %}
{%- set said = m.reasoning_content or '' %}{% set text = m.content or '' %}
{%- if '</think>' in text %}{% set said = text.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
{%- set text = text.split('</think>')[-1].lstrip('\\n') %}{% endif %}
{{- '<|turn|>assistant\\n' }}{% if loop.index0 > last.user and (loop.last or said) %}
{{- '<think>\\n' + said + '\\n</think>\\n\\n' }}{% endif %}{{ text }}
{%- for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}
{{- '<|end|>\\n' }}
{%- else %}{{ '<|turn|>' + m.role + '\\n' + m.content + '<|end|>\\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"""
# R1's distills: the prompt begins the thinking, turns are written without, arguments are joined.
R1 = """\
{%- for m in messages %}{% if m.role == 'user' %}{{ '<|turn|>User' + m.content }}{% endif %}
{%- if m.role == 'assistant' %}{% set text = m.content or '' %}
{%- if '</think>' in text %}{% set text = text.split('</think>')[-1] %}{% endif %}{{ '<|turn|>Assistant' + text }}
{%- for call in m.tool_calls or [] %}{{ 'CALL ' + call['function']['name'] + '\\n' + call['function']['arguments'] }}{% endfor %}
{{- '<|end|>' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|turn|>Assistant<think>\\n' }}{% endif %}"""
# Nemotron 3: as R1's prompt, and an answer without thinking is written with empty tags.
NEMOTRON_3 = """\
{%- for m in messages %}{% if m.role == 'assistant' %}
{{- '<|turn|>assistant\\n' + ('<think>\\n' + m.reasoning_content + '\\n</think>\\n' if m.reasoning_content else '<think></think>') + m.content + '<|end|>\\n' }}
{%- else %}{{ '<|turn|>' + m.role + '\\n' + m.content + '<|end|>\\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|turn|>assistant\\n' + ('<think>\\n' if enable_thinking | default(true) else '<think></think>') }}{% endif %}"""
# Gemma 4: thinking is left out by an empty one in the prompt, which no turn is written with.
GEMMA_4 = """\
{%- if enable_thinking | default(false) %}<|turn|>system
<|think|><|end|>
{% endif %}
{%- for m in messages %}{{ '<|turn|>' + m.role + '\\n' + m.content + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}
{%- if not enable_thinking | default(false) %}{{ '<|channel>thought\\n<channel|>' }}{% endif %}{% endif %}"""
# Phi 3: the turn's end, and then the end of the text.
PHI_3 = """\
{%- for m in messages %}{{ '<|turn|>' + m.role + '\\n' + m.content + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% else %}{{ '<|end|>' }}{% endif %}"""
# Llama 3.1 and Granite ask the clock; Llama 3.1 can be told.
LLAMA_31 = """\
{%- if not date_string is defined %}{% if strftime_now is defined %}{% set date_string = strftime_now("%d %b %Y") %}
{%- else %}{% set date_string = "26 Jul 2024" %}{% endif %}{% endif %}
{{- "Today Date: " + date_string + "\\n" }}
{%- for m in messages %}{{ '<|turn|>' + m.role + '\\n' + m.content + '<|end|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"""
GRANITE = "Today's Date: {{ strftime_now('%B %d, %Y, %H:%M, 100%%') }}.\n" + LLAMA_3

Make = Callable[..., Chat]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_chat(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def make(folder: Path) -> Make:
    """Return what makes a chat of a template."""
    loaded = Chat.load(folder)

    def made(template: str, **options: Any) -> Chat:
        tokenizer = copy.copy(loaded.tokenizer)
        tokenizer.chat_template = template
        return replace(loaded, tokenizer=tokenizer).with_options(options)

    return made


def learned(chat: Chat, *messages: dict[str, Any], **more: Any) -> list[list[str]]:
    return [
        [chat.text_of(segment.tokens) for segment in episode.segments if segment.sampled]
        for episode in chat.episodes("a", messages, **more)
    ]


TOOLLESS = [LLAMA_2, LLAMA_3, GEMMA_3, LFM_2, COHERE]


@pytest.mark.parametrize("template", TOOLLESS)
def test_a_call_that_is_not_written_is_refused_with_text_and_without(
    make: Make, template: str
) -> None:
    """As a template does that writes tools and drops the calls."""
    chat = make("{% if tools %}{{ tools | tojson }}{% endif %}" + template)
    for content in ("", "Let me look.", None):
        with pytest.raises(DataError, match=r"does not write the call of 'find' in message 2\."):
            chat.episodes("a", [USER, {**CALLS, "content": content}, FOUND, ANSWER], [TOOL])


@pytest.mark.parametrize("template", TOOLLESS)
def test_where_a_template_writes_no_tools_they_are_plain_text(make: Make, template: str) -> None:
    chat = make(template)
    said: list[dict[str, Any]] = [
        USER,
        CALLS,
        {**FOUND, "content": "a</tool_response><|end|>"},
        FOUND,
        USER,
    ]
    prompt = chat.text_of(chat.prompt(said, [TOOL]))
    listed = f"You can call these functions:\n{json.dumps(TOOL['function'])}\nTo call a function"
    assert listed in prompt
    found = "<tool_response>\na< /tool_response>< |end|>\n</tool_response>\n<tool_response>\n12\n"
    assert f"{found}</tool_response>\n2+2?" in prompt
    call = '<tool_call>{"name": "find", "arguments": {"q": "ACME"}}</tool_call>'
    for tools in ([TOOL], None):
        turn, answer = learned(chat, USER, CALLS, FOUND, ANSWER, tools=tools)[0]
        assert turn.strip().removesuffix("<|end|>").strip() == call
        assert "four" in answer
    assert not make(R1).writes_tools
    assert "CALL find" in make(R1).render("", [USER, CALLS, USER], None, generate=True)


def test_tools_that_are_not_in_the_prompt_are_refused(make: Make) -> None:
    chat = make(QWEN_3.replace("for tool in tools", "for tool in tools[:1]"))
    other = {"type": "function", "function": {"name": "other", "parameters": {"type": "object"}}}
    for ask in (chat.episodes, lambda id, said, tools: chat.prompt(said, tools, id)):
        with pytest.raises(DataError, match="row 'a': the chat template does not write the tools"):
            ask("a", [USER, ANSWER, USER], [TOOL, other])


def test_a_call_is_refused_that_is_written_in_part(make: Make) -> None:
    twice = {**CALLS, "tool_calls": [CALL, CALL]}
    assert "".join(learned(make(QWEN_3), USER, twice)[0]).count("ACME") == 2
    for part in ("(m.tool_calls or [])[:1]", "[]"):
        template = QWEN_3.replace("m.tool_calls or [] %}<tool", f"{part} %}}<tool")
        with pytest.raises(DataError, match="does not write the call"):
            learned(make(template), USER, twice)
    named = QWEN_3.replace("call.function | tojson", "call.function.name")
    with pytest.raises(DataError, match="does not write the call of 'find'"):
        learned(make(named), USER, CALLS)


def test_arguments_are_joined_as_text_where_a_template_joins_text(make: Make) -> None:
    chat = make(R1.replace("<think>\\n", ""))
    assert learned(chat, USER, CALLS) == [['CALL find\n{"q": "ACME"}<|end|>']]


@pytest.mark.parametrize("template", [LLAMA_3, GEMMA_3, LFM_2, COHERE])
def test_thinking_that_is_not_written_is_refused_and_can_be_dropped(
    make: Make, template: str
) -> None:
    chat = make(template)
    with pytest.raises(DataError, match="does not write the thinking of message 2") as caught:
        chat.episodes("a", [USER, THOUGHT], thinking="keep")
    assert caught.value.next_step.startswith("Set thinking = 'drop' in the recipe")
    with pytest.raises(DataError) as caught:
        chat.episodes("a", [USER, THOUGHT])
    assert caught.value.next_step == "Remove the thinking from the row's messages."
    assert learned(chat, USER, THOUGHT, thinking="drop") == [["four<|end|>"]]
    inline = {"role": "assistant", "content": "<think>two</think>four"}
    assert learned(chat, USER, inline) == [["<think>two</think>four<|end|>"]]
    unlearned = {**THOUGHT, "weight": 0}
    assert learned(chat, USER, unlearned, USER, ANSWER) == [["four<|end|>"]]


def test_the_way_out_is_one_that_works(make: Make) -> None:
    """It names a key that the recipe has, or a setting of the template, each tried first."""
    with pytest.raises(DataError, match="message 2 differently from how it is") as caught:
        make(NEMOTRON_3).episodes("a", [USER, ANSWER])
    assert caught.value.next_step == "Set template = { enable_thinking = false } in the recipe."
    chat = make(NEMOTRON_3, enable_thinking=False)
    assert learned(chat, USER, ANSWER) == [["four<|end|>"]]
    with pytest.raises(DataError) as caught:
        chat.episodes("a", [USER, THOUGHT], thinking="keep")
    assert "thinking = 'drop'" in caught.value.next_step
    assert learned(chat, USER, THOUGHT, thinking="drop") == [["four<|end|>"]]
    with pytest.raises(DataError) as caught:
        make(R1).episodes("a", [USER, THOUGHT], thinking="keep")
    assert "Use another model" in caught.value.next_step
    assert "drop" not in caught.value.next_step


def test_a_thinking_switch_is_given_in_training_and_in_the_prompt(make: Make) -> None:
    assert learned(make(QWEN_3), USER, ANSWER) == [["<think>\n\n</think>\n\nfour<|end|>"]]
    off = make(QWEN_3, enable_thinking=False)
    assert learned(off, USER, ANSWER) == [["four<|end|>"]]
    assert off.decode(off.prompt([USER])).endswith("assistant\n<think>\n\n</think>\n\n")
    assert off.opening(off.prompt([USER])) == ""
    with pytest.raises(ConfigError, match="never reads 'thinking'; it reads enable_thinking") as e:
        make(QWEN_3, thinking=False)
    assert "enable_thinking" in e.value.next_step
    with pytest.raises(ConfigError, match="it reads no setting at all"):
        make(LLAMA_3, messages=[])


def test_two_turns_of_a_template_with_a_last_end_are_one_episode(make: Make) -> None:
    chat = make(PHI_3)
    assert learned(chat, USER, ANSWER, USER, ANSWER) == [["four<|end|>", "four<|end|>"]]
    (episode,) = chat.episodes("a", [USER, ANSWER, USER, ANSWER])
    asked = chat.prompt([USER, ANSWER, USER])
    assert episode.tokens[: len(asked)] == asked
    assert chat.text_of(episode.tokens).endswith("four<|end|>\n<|end|>")


def test_a_turn_follows_the_empty_thinking_that_its_prompt_ends_with(make: Make) -> None:
    chat = make(GEMMA_4)
    made = chat.episodes("a", [USER, ANSWER, USER, ANSWER])
    assert [one.id for one in made] == ["a", "a#2"]
    assert learned(chat, USER, ANSWER, USER, ANSWER) == [["four<|end|>"], ["four<|end|>"]]
    for episode, asked in zip(made, ([USER], [USER, ANSWER, USER]), strict=True):
        prompt = chat.prompt(asked)
        assert chat.text_of(prompt).endswith("assistant\n<|channel>thought\n<channel|>")
        assert episode.tokens[: len(prompt)] == prompt
    thinks = make(GEMMA_4, enable_thinking=True)
    assert learned(thinks, USER, ANSWER, USER, ANSWER) == [["four<|end|>", "four<|end|>"]]


def test_a_chat_that_the_assistant_begins_says_what_to_do(make: Make) -> None:
    greeting = {"role": "assistant", "content": "Hello."}
    with pytest.raises(DataError, match="row 'a': the assistant begins the chat") as caught:
        make(LLAMA_3).episodes("a", [greeting, USER, ANSWER])
    assert '"weight": 0' in caught.value.next_step
    unlearned = {**greeting, "weight": 0}
    chat = make(LLAMA_3)
    assert learned(chat, unlearned, USER, ANSWER) == [["four<|end|>"]]
    assert "Hello." in chat.decode(chat.episode("a", [unlearned, USER, ANSWER]).tokens)


def test_a_turn_without_a_known_end_names_the_id_to_add(make: Make) -> None:
    chat = replace(make(LLAMA_3), stop_ids=(12,))
    with pytest.raises(DataError, match=r"any of the ids \(12,\)") as caught:
        chat.episodes("a", [USER, ANSWER])
    assert "'<|end|>': add its id, 257" in caught.value.next_step


def test_why_every_answer_was_cut_off_is_said(make: Make) -> None:
    endless = replace(make(QWEN_3), stop_ids=(12,))
    assert cut_off_advice(endless, ["<think>a"]).startswith("No answer can end: the template does")
    assert "add its id, 257" in cut_off_advice(endless, [])
    thinking = ["<think>a", "<think>b", '{"a": 1']
    assert cut_off_advice(make(QWEN_3), thinking).endswith(
        "set template = { enable_thinking = false }, which ends it."
    )
    off = make(QWEN_3, enable_thinking=False)
    assert (
        cut_off_advice(off, thinking)
        == "Most were still thinking. Raise the task's max_answer_tokens."
    )
    assert cut_off_advice(off, thinking[1:] + thinking[2:]) == "Raise the task's max_answer_tokens."


def test_the_date_is_the_users_then_the_runs_then_todays(make: Make) -> None:
    day = {CLOCK: "2026-11-01"}

    def said(template: str, **told: Any) -> str:
        return make(template, **told).render("", [USER], None, generate=True)

    assert said(LLAMA_31, **day, date_string="a feast").startswith("Today Date: a feast\n")
    assert said(LLAMA_31, **day, date="2026-02-03").startswith("Today Date: 03 Feb 2026\n")
    assert said(LLAMA_31, **day).startswith("Today Date: 01 Nov 2026\n")
    first, end, rest = said(GRANITE, **day).partition("%.")
    assert first + end == "Today's Date: November 01, 2026, 00:00, 100%."
    assert rest == said(LLAMA_3)
    begins = "\n  {% if true %}{{ strftime_now('%Y') }}{% endif %}"
    assert said(begins, **day) == said(begins.replace("strftime_now('%Y')", "2026")) == "\n2026"
    with pytest.raises(ConfigError, match=r"template\.date must be a day such as 2026-11-01"):
        make(GRANITE, date="today")
    with pytest.raises(ConfigError, match="never reads 'date'"):
        make(LLAMA_3, date="2026-11-01")


def test_recorded_options_are_given_where_they_are_read(folder: Path, tmp_path: Path) -> None:
    recorded = {CLOCK: "2026-11-01", "enable_thinking": False}
    assert Chat.load(folder, {}, recorded).options == {CLOCK: "2026-11-01"}
    settings = orjson.loads((folder / "tokenizer_config.json").read_bytes())
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    told = {**settings, "chat_template": QWEN_3}
    (tmp_path / "tokenizer_config.json").write_bytes(orjson.dumps(told))
    chat = Chat.load(tmp_path, {"enable_thinking": True}, recorded)
    assert chat.options == {CLOCK: "2026-11-01", "enable_thinking": True}
    with pytest.raises(ConfigError):
        Chat.load(folder, {"enable_thinking": True})


def test_a_prompt_that_begins_thinking_is_known_by_its_tag(make: Make) -> None:
    chat = make(R1)
    asked = chat.prompt([USER])
    assert chat.opening(asked) == "<think>"
    said = chat.encode("It is four.\n</think>\n\n4")
    assert chat.answer_text(asked, said) == "<think>\nIt is four.\n</think>\n\n4"
    bound = chat.encode('{"a": "</think>"}')
    assert chat.answer_text(asked, bound) == '{"a": "</think>"}'
    assert chat.answer_text(asked, chat.encode("It is f")) == "<think>\nIt is f"
    assert chat.answer_text(asked, chat.encode("<think>a</think>4")) == "<think>a</think>4"
    quoted = make(R1).prompt([{**USER, "content": "<think>"}])
    assert chat.opening((*quoted, *chat.encode("a"))) == ""


def test_tags_of_thinking_that_are_special_tokens_stay(make: Make, folder: Path) -> None:
    """As in Mistral's and others' tokenizers, where skipping them joins thinking and answer."""
    chat = Chat.load(folder)
    chat.tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    tokens = chat.encode("[THINK]two[/THINK]four<|end|>")
    assert chat.decode(tokens) == "[THINK]two[/THINK]four"


def test_channels_of_thinking_are_read_as_thinking(folder: Path) -> None:
    """gpt-oss and Gemma 4 mark it by special tokens; skipping these joins thinking and answer."""
    marks = ["channel", "start", "message", "end", "return"]
    names = [*(f"<|{mark}|>" for mark in marks if mark != "end"), "<|channel>", "<channel|>"]
    loaded = Chat.load(folder)
    loaded.tokenizer.add_special_tokens({"additional_special_tokens": names})
    chat = replace(loaded, special=(*loaded.special, *names))

    def read(text: str) -> str:
        return chat.answer_text(chat.encode("a"), chat.encode(text))

    thought = "<|channel|>analysis<|message|>It is four."
    final = '<|start|>assistant<|channel|>final<|message|>{"a": 4}<|return|>'
    assert read(f"{thought}<|end|>{final}") == '<think>It is four.</think>\n\n{"a": 4}'
    assert read(final.removeprefix("<|start|>assistant")) == '{"a": 4}'
    assert read(thought) == "<think>It is four."
    assert read("<|channel>thought\nIt is<channel|>4<|end|>") == "<think>It is</think>\n\n4"
    assert read("<|channel>thought\nIt is") == "<think>It is"
    assert read("4<|end|>") == "4"


EXPECTED = {
    "Llama 3": (LLAMA_3, {"thinking"}),
    "Qwen 3": (QWEN_3, set()),
    "R1": (R1, {"answers", "chats of several turns", "tool calls", "thinking"}),
    "Nemotron 3": (NEMOTRON_3, {"answers", "chats of several turns", "tool calls"}),
}


@pytest.mark.parametrize("family", EXPECTED)
def test_what_a_template_cannot_be_trained_on_is_found_by_trying(make: Make, family: str) -> None:
    template, cannot = EXPECTED[family]
    found = try_abilities(make(template))
    assert {name for name, why in found.items() if why} == cannot
    assert all(why.endswith(".") for why in found.values() if why)


@pytest.mark.parametrize(
    ("generation", "config", "stops"),
    [
        (None, {"eos_token_id": 12}, (12, 257)),
        (None, {"eos_token_id": [12, 13]}, (12, 13, 257)),
        (None, {"text_config": {"eos_token_id": 13}}, (13, 257)),
        ({"eos_token_id": [14, None]}, {"eos_token_id": 12}, (14, 257)),
        ({}, {"eos_token_id": 12}, (257,)),
    ],
)
def test_ends_are_read_as_transformers_does(
    folder: Path, tmp_path: Path, generation: Any, config: Any, stops: tuple[int, ...]
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    own = {**tiny_llama.CONFIG, **config}
    if "text_config" in config:
        del own["eos_token_id"]
    (tmp_path / "config.json").write_bytes(orjson.dumps(own))
    if generation is not None:
        (tmp_path / "generation_config.json").write_bytes(orjson.dumps(generation))
    assert Chat.load(tmp_path).stop_ids == stops


def test_a_template_that_cannot_render_names_the_row(make: Make) -> None:
    with pytest.raises(ModelError, match=r"row 'a': .*roles must alternate"):
        make(GEMMA_3).episodes("a", [USER, {"role": "system", "content": "Go."}, ANSWER])
