"""A model is stored only when its chat template renders, and ends."""

from __future__ import annotations

from pathlib import Path

import model_files
import orjson
import pytest

from offapi import cli
from offapi.chat import template_probe
from offapi.errors import ModelError
from offapi.models import store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFAPI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(template_probe, "SECONDS", 2)


def folder(path: Path, template: str | None) -> Path:
    """Write a model with that chat template, or without one."""
    model_files.folder(path)
    settings = orjson.loads((path / "tokenizer_config.json").read_bytes())
    del settings["chat_template"]
    (path / "tokenizer_config.json").write_bytes(orjson.dumps(settings))
    if template is not None:
        (path / "chat_template.jinja").write_text(template)
    return path


LOOPS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
REFUSED = {
    "missing": (None, "the model has no chat template"),
    "raises": ("{{ raise_exception('Only tools') }}", "TemplateError: Only tools"),
    "loops": (LOOPS, "did not end within 2 s"),
    "big number": ("{{ 10 ** (10 ** 8) }}", "did not end within 2 s"),
    "big text": ("{{ 'a' * 10 ** 11 }}", "MemoryError"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_template_is_refused_before_the_model_is_stored(tmp_path: Path, case: str) -> None:
    template, said = REFUSED[case]
    source = folder(tmp_path / "a", template)
    with pytest.raises(ModelError) as caught:
        store.add(source)
    assert said in caught.value.what
    assert caught.value.where.startswith(str(source))
    assert caught.value.next_step
    assert store.listing() == []


def test_a_model_without_a_system_role_is_added_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = """\
{%- for message in messages %}
{%- if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{{- message.content }}<|end|>{% endfor %}"""
    assert cli.run(["models", "add", str(folder(tmp_path / "a", template))]) == 0
    assert "instructions are put before the first user message" in capsys.readouterr().err
