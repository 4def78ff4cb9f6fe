"""Ollama's Go template is found by rendering the model's own; what cannot be found is said.

That Go's text/template writes what each model's template does was tried with Go itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_gguf

from offapi.chat.chat import Chat
from offapi.export.modelfile import RAW, TRIMS, ollama_template, write_modelfile

CHATML = tiny_gguf.TEMPLATE
GREETED = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|turn_end|>\n{% endif %}"
    + CHATML
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}"
    "<|end_header_id|>\n\n{{ message['content'] | trim }}<|turn_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL, NO_SYSTEM = tiny_gguf.MISTRAL, tiny_gguf.NO_SYSTEM
BRACES = "{{ '{{' }}" + CHATML
COUNTED = "{{ messages | length }}" + CHATML
LOUD = CHATML.replace("message['content']", "message['content'] | upper")


def chat_of(folder: Path, template: str) -> Chat:
    return Chat.load(tiny_gguf.write(folder, chat_template=template))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (
            CHATML,
            '{{ $last := "" }}{{ range .Messages }}'
            '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}'
            '{{ else if eq .Role "user" }}{{ if eq $last "" }}<|im_start|>user\n'
            '{{ else if eq $last "system" }}<|turn_end|>\n<|im_start|>user\n'
            '{{ else if eq $last "assistant" }}<|turn_end|>\n<|im_start|>user\n{{ end }}'
            '{{ .Content }}{{ else if eq .Role "assistant" }}<|turn_end|>\n<|im_start|>assistant\n'
            "{{ .Content }}{{ end }}{{ $last = .Role }}{{ end }}"
            '{{ if eq $last "user" }}<|turn_end|>\n<|im_start|>assistant\n{{ end }}',
        ),
        (
            MISTRAL,
            '{{ $last := "" }}{{ range .Messages }}'
            '{{ if eq .Role "system" }}<|im_start|>[INST] {{ .Content }}'
            '{{ else if eq .Role "user" }}{{ if eq $last "" }}<|im_start|>[INST] '
            '{{ else if eq $last "system" }}\n\n{{ else if eq $last "assistant" }}<|turn_end|>[INST] '
            '{{ end }}{{ .Content }}{{ else if eq .Role "assistant" }} [/INST] {{ .Content }}'
            '{{ end }}{{ $last = .Role }}{{ end }}{{ if eq $last "user" }} [/INST]{{ end }}',
        ),
    ],
)
def test_the_go_template_writes_what_stands_between_texts(
    tmp_path: Path, template: str, text: str
) -> None:
    found = ollama_template(chat_of(tmp_path, template))
    assert (found.text, found.note) == (text, "")


def test_a_default_system_text_a_missing_role_and_braces_are_written(tmp_path: Path) -> None:
    greeted = ollama_template(chat_of(tmp_path / "a", GREETED)).text
    assert (
        '{{ if eq $last "" }}<|im_start|>system\nYou help.<|turn_end|>\n<|im_start|>user' in greeted
    )
    without = ollama_template(chat_of(tmp_path / "b", NO_SYSTEM)).text
    assert '{{ if eq .Role "system" }}<|im_start|>user\n{{ .Content }}' in without
    assert '{{ else if eq $last "system" }}\n\n{{ else' in without
    assert '{{ "{{" }}<|im_start|>user' in ollama_template(chat_of(tmp_path / "c", BRACES)).text


def test_what_ollama_cannot_do_is_said(tmp_path: Path) -> None:
    trimmed = ollama_template(chat_of(tmp_path / "a", LLAMA3))
    assert trimmed.note == TRIMS
    assert "<|start_header_id|>system<|end_header_id|>\n\n{{ .Content }}" in trimmed.text
    for name, template in (("b", COUNTED), ("c", LOUD)):
        found = ollama_template(chat_of(tmp_path / name, template))
        assert found.text == RAW
        assert "cannot be written for Ollama" in found.note


def test_the_modelfile_has_stops_context_and_no_system(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, CHATML)
    write_modelfile(tmp_path, "model.gguf", chat, {"max_position_embeddings": 100_000})
    lines = (tmp_path / "Modelfile").read_text().splitlines()
    assert lines[0] == "FROM ./model.gguf"
    assert lines[-4:] == [
        'PARAMETER stop "<|endoftext|>"',
        'PARAMETER stop "<|turn_end|>"',
        "PARAMETER temperature 0",
        "PARAMETER num_ctx 8192",
    ]
    assert not any(line.startswith("SYSTEM") for line in lines)
