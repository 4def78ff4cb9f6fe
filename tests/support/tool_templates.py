"""What the templates of real families do with tools, calls and results, in short forms.

Each is made of what the family's own template writes, without its prose. Left out: dates, images,
and thinking, except Qwen 3's.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tiny_llama

from offapi.chat.chat import Chat

LIST = "{%- if tools %}{{ '<|turn|>system\\n' + (tools | tojson) + '<|end|>' }}{% endif %}"
GENERATE = "{%- if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"
OTHERS = "{{ '<|turn|>' + m.role + '\\n' + (m.content or '') }}"
RESULTS = """\
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|turn|>user' }}{% endif %}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|end|>\\n' }}{% endif %}"""

QWEN = f"""{LIST}
{{%- for m in messages %}}{{%- if m.role == 'tool' %}}{RESULTS}{{%- else %}}{OTHERS}
{{%- for call in m.tool_calls or [] %}}
{{%- if (loop.first and m.content) or not loop.first %}}{{{{ '\\n' }}}}{{% endif %}}
{{{{- '<tool_call>\\n{{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson + '}}\\n</tool_call>' }}}}
{{%- endfor %}}{{{{ '<|end|>\\n' }}}}{{% endif %}}{{% endfor %}}{GENERATE}"""
# Thinking is written after the last question alone, and an empty one in the last turn.
QWEN_3 = QWEN.replace(
    OTHERS,
    "{{ '<|turn|>' + m.role + '\\n' }}"
    "{%- if m.role == 'assistant' and loop.index0 > last.user and (loop.last or m.reasoning_content) %}"
    "{{ '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{% endif %}"
    "{{ m.content or '' }}",
).replace(
    LIST,
    "{%- set last = namespace(user=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set last.user = loop.index0 %}{% endif %}{% endfor %}" + LIST,
)
QWEN_XML = f"""{LIST}
{{%- for m in messages %}}{{%- if m.role == 'tool' %}}{RESULTS}{{%- else %}}{OTHERS}
{{%- for call in m.tool_calls or [] %}}
{{%- if not loop.first or m.content %}}{{{{ '\\n' }}}}{{% endif %}}
{{{{- '<tool_call>\\n<function=' + call.function.name + '>\\n' }}}}
{{%- for name, value in call.function.arguments | items %}}
{{{{- '<parameter=' + name + '>\\n' }}}}
{{{{- value | tojson if value is mapping or (value is sequence and value is not string) else value | string }}}}
{{{{- '\\n</parameter>\\n' }}}}{{% endfor %}}{{{{ '</function>\\n</tool_call>' }}}}
{{%- endfor %}}{{{{ '<|end|>\\n' }}}}{{% endif %}}{{% endfor %}}{GENERATE}"""
LLAMA = f"""{LIST}
{{%- for m in messages %}}{{%- if m.tool_calls %}}
{{%- if m.tool_calls | length != 1 %}}{{{{ raise_exception('single tool-calls at once') }}}}{{% endif %}}
{{{{- '<|turn|>assistant\\n{{"name": "' + m.tool_calls[0].function.name + '", "parameters": ' }}}}
{{{{- m.tool_calls[0].function.arguments | tojson + '}}<|end|>' }}}}
{{%- elif m.role == 'tool' %}}{{{{ '<|turn|>ipython\\n' + m.content | tojson + '<|end|>' }}}}
{{%- else %}}{OTHERS}{{{{ '<|end|>' }}}}{{% endif %}}{{% endfor %}}{GENERATE}"""
# Of Mistral Small 3: ids of nine letters, one result for each call, roles in turn, tools late.
MISTRAL = """\
{%- set users = messages | selectattr('role', 'equalto', 'user') | list %}
{%- set calls = namespace(open=0) %}
{%- for m in messages %}
{%- if m.role == 'user' %}
{%- if tools and m == users[-1] %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}
{{- '[INST]' + m.content + '[/INST]' }}
{%- elif m.role == 'system' %}{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}
{%- elif m.tool_calls %}{{ '[TOOL_CALLS] [' }}
{%- for call in m.tool_calls %}{% if call.id | length != 9 %}{{ raise_exception('ids of nine') }}{% endif %}
{%- set calls.open = calls.open + 1 %}
{{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' + (']<|end|>' if loop.last else ', ') }}{% endfor %}
{%- elif m.role == 'tool' %}{% set calls.open = calls.open - 1 %}
{%- if m.tool_call_id | length != 9 or calls.open < 0 %}{{ raise_exception('a result without its call') }}{% endif %}
{{- '[TOOL_RESULTS] {"content": ' + m.content + ', "call_id": "' + m.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- else %}{{ m.content + '<|end|>' }}{% endif %}{% endfor %}"""
MISTRAL_ARGS = """\
{%- if tools %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}
{%- elif m.role == 'system' %}{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}
{%- elif m.role == 'tool' %}{{ '[TOOL_RESULTS]' + m.content + '[/TOOL_RESULTS]' }}
{%- else %}{{ m.content or '' }}
{%- for call in m.tool_calls or [] %}{{ '[TOOL_CALLS]' + call.function.name + '[ARGS]' + (call.function.arguments | tojson) }}{% endfor %}
{{- '<|end|>' }}{% endif %}{% endfor %}"""
# A result follows its call in the same turn, which ends with the token that begins a result.
GEMMA = """\
{%- macro value(v) %}{% if v is string %}QUOTE{{ v }}QUOTE{% elif v is boolean %}{{ 'true' if v else 'false' }}
{%- elif v is mapping %}{{ '{' }}{% for k, each in v | dictsort %}{{ k }}:{{ value(each) }}{{ ',' if not loop.last }}{% endfor %}{{ '}' }}
{%- elif v is sequence %}[{% for each in v %}{{ value(each) }}{{ ',' if not loop.last }}{% endfor %}]
{%- else %}{{ v }}{% endif %}{% endmacro %}
{%- set last = namespace(said='') %}
{%- if tools %}<|turn|>system
{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|end|>
{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}RESULTresponse:{{ m.name }}{value:{{ value(m.content) }}}ENDED
{%- set last.said = 'tool' %}
{%- else %}
{%- if last.said != 'tool' or m.role != 'assistant' %}{{ '<|turn|>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}{% endif %}
{%- for call in m.tool_calls or [] %}OPENcall:{{ call.function.name }}{{ value(call.function.arguments) }}CLOSE{% endfor %}
{%- if m.tool_calls %}{% if loop.last %}RESULT{% endif %}{% set last.said = 'call' %}
{%- else %}{{ m.content + '<|end|>\\n' }}{% set last.said = '' %}{% endif %}{% endif %}{% endfor %}
{%- if add_generation_prompt and last.said != 'tool' %}<|turn|>model
{% endif %}"""


def _gemma(*marks: str) -> str:
    text = GEMMA
    for word, mark in zip(("QUOTE", "OPEN", "CLOSE", "RESULT", "ENDED"), marks, strict=True):
        text = text.replace(word, mark)
    return text


GEMMA_MARKS = ('<|"|>', "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>")
FUNCTION_MARKS = (
    "<escape>",
    "<start_function_call>",
    "<end_function_call>",
    "<start_function_response>",
    "<end_function_response>",
)
GPT_OSS = """\
{%- if tools %}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{% endif %}
{%- set last = namespace(call='') %}
{%- for m in messages %}
{%- if m.tool_calls %}{% set last.call = m.tool_calls[0].function.name %}
{{- '<|start|>assistant to=functions.' + last.call + '<|channel|>commentary json<|message|>' + (m.tool_calls[0].function.arguments | tojson) + '<|call|>' }}
{%- elif m.role == 'tool' %}{{ '<|start|>functions.' + last.call + ' to=assistant<|channel|>commentary<|message|>' + (m.content | tojson) + '<|end|>' }}
{%- elif m.role == 'assistant' %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}
{%- else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|start|>assistant{% endif %}"""
LFM = f"""{LIST}
{{%- macro value(v) %}}{{% if v is string %}}'{{{{ v | replace("\\\\", "\\\\\\\\") | replace("'", "\\\\'") }}}}'
{{%- elif v is mapping or v is iterable %}}{{{{ v | tojson }}}}{{% else %}}{{{{ v }}}}{{% endif %}}{{% endmacro %}}
{{%- for m in messages %}}{OTHERS}
{{%- for call in m.tool_calls or [] %}}{{{{ '<|tool_call_start|>[' if loop.first else ', ' }}}}{{{{ call.function.name }}}}(
{{%- for k, v in call.function.arguments | items %}}{{{{ k }}}}={{{{ value(v) }}}}{{{{ ', ' if not loop.last }}}}{{% endfor %}})
{{%- if loop.last %}}]<|tool_call_end|>{{% endif %}}{{% endfor %}}<|end|>
{{% endfor %}}{GENERATE}"""


@dataclass(frozen=True)
class Form:
    """A template, the tokens that it needs, and those of them that end a turn."""

    template: str
    special: Sequence[str] = ()
    ends: Sequence[str] = ()


_MISTRAL = ("[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[INST]", "[/INST]")
_HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|call|>", "<|return|>")
FORMS: dict[str, Form] = {  # the format that is found, and what a family adds to it
    "hermes": Form(QWEN),
    "hermes, Qwen 3": Form(QWEN_3),
    "qwen-xml": Form(QWEN_XML),
    "llama": Form(LLAMA, ("<|python_tag|>",)),
    "mistral": Form(MISTRAL, _MISTRAL),
    "mistral, names": Form(MISTRAL_ARGS, (*_MISTRAL, "[ARGS]")),
    "gemma": Form(_gemma(*GEMMA_MARKS), GEMMA_MARKS, GEMMA_MARKS[3:4]),
    "functiongemma": Form(_gemma(*FUNCTION_MARKS), FUNCTION_MARKS, FUNCTION_MARKS[3:4]),
    "gpt-oss": Form(GPT_OSS, _HARMONY, ("<|call|>", "<|return|>")),
    "lfm": Form(LFM, ("<|tool_call_start|>", "<|tool_call_end|>")),
    "fallback": Form(tiny_llama.TEMPLATE),
}


def chats(folder: Path) -> dict[str, Chat]:
    """Write the tiny model into `folder` and return the chat of each form."""
    tiny = loaded(folder)
    return {name: chat_of(tiny, form) for name, form in FORMS.items()}


def loaded(folder: Path) -> Chat:
    """Write the tiny model into `folder` and return its chat."""
    return Chat.load(tiny_llama.write_chat(folder))


def chat_of(loaded: Chat, form: Form) -> Chat:
    """Return the chat of a form, with the tiny model's tokenizer and the form's tokens."""
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.chat_template = form.template
    if form.special:
        tokenizer.add_special_tokens({"additional_special_tokens": list(form.special)})
    ends = [tokenizer.convert_tokens_to_ids(end) for end in form.ends]
    # gpt-oss ends messages with <|end|>, and turns with other tokens
    stops = ends if "<|call|>" in form.ends else [*loaded.stop_ids, *ends]
    special = (*loaded.special, *form.special)
    return replace(loaded, tokenizer=tokenizer, stop_ids=tuple(stops), special=special)
