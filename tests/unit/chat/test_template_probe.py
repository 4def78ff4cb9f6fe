"""A model is stored only when its tokenizer and chat template work, and end."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import model_files
import orjson
import psutil
import pytest
import tiny_llama

from offapi import cli, doctor
from offapi.chat import abilities, template_probe
from offapi.chat.chat import Chat
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
    "text of 3 GB": ("{{ ('a' * 3000000000)[:1] }}", "MemoryError"),
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


def test_a_killed_command_leaves_no_probe(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", LOOPS)
    program = "from offapi.cli import main; main()"
    command = [sys.executable, "-c", program, "models", "add", str(source)]
    adding = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    found: list[psutil.Process] = []
    end = time.monotonic() + 60
    while not found and time.monotonic() < end:
        time.sleep(0.05)
        children = psutil.Process(adding.pid).children(recursive=True)
        found = [child for child in children if child.name().startswith("python")]
    adding.kill()
    adding.wait()
    assert found
    _, alive = psutil.wait_procs(found, 3.0)
    assert alive == []


def test_a_model_without_a_system_role_is_added_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = """\
{%- for message in messages %}
{%- if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{{- message.content }}<|end|>{% endfor %}"""
    assert cli.run(["models", "add", str(folder(tmp_path / "a", template))]) == 0
    assert "instructions are put before the first user message" in capsys.readouterr().err


def test_what_a_template_cannot_be_trained_on_is_said_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an R1 distill's, and as one whose turn's end is none of the model's own."""
    template = (
        "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|turn|>{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    assert cli.run(["models", "add", str(folder(tmp_path / "a", template)), "--json"]) == 0
    printed = capsys.readouterr()
    cannot = orjson.loads(printed.out)["cannot_learn"]
    assert set(cannot) == set(abilities.TRIALS)
    assert "'<|turn|>': add its id, 256, to eos_token_id" in cannot["answers"]
    assert cli.run(["models", "verify", "a"]) == 0
    assert f"It cannot learn answers: {cannot['answers']}" in capsys.readouterr().err
    (finding,) = doctor._models([])
    assert finding.detail.endswith("cannot be trained on " + ", ".join(abilities.TRIALS))
    kept = store.stored("a").path / abilities.FILE
    assert abilities.read_abilities(kept.parent) == orjson.loads(kept.read_bytes())
    kept.write_bytes(b"{}")
    assert cli.run(["models", "verify", "a"]) == 1


def split_by(expression: str) -> dict[str, Any]:
    """Return a pre-tokenizer that splits by `expression` before bytes are mapped."""
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    bytes_ |= {"trim_offsets": True}
    return {"type": "Sequence", "pretokenizers": [{**split, "invert": False}, bytes_]}


def replacing(found: dict[str, str], content: str, times: int) -> dict[str, Any]:
    rule = {"type": "Replace", "pattern": found, "content": content}
    return {"type": "Sequence", "normalizers": [rule] * times}


TOKENIZERS: dict[str, tuple[dict[str, Any], str]] = {
    "an expression without end": ({"pre_tokenizer": split_by("(a+)+$")}, "gave up on a text"),
    "one in the normalizer": (
        {"normalizer": replacing({"Regex": r"(\w+\s?)*$"}, "x", 1)},
        "gave up on a text",
    ),
    "an expression that is none": (
        {"normalizer": replacing({"Regex": "("}, "x", 1)},
        "no usable tokenizer",
    ),
    "a letter doubled forty times": (
        {"normalizer": replacing({"String": "q"}, "qq", 40)},
        "can make a text over 100 times as long",
    ),
    "a pair that no trial hits": (
        {"normalizer": replacing({"String": "qx"}, "qxqx", 40)},
        "can make a text over 100 times as long",
    ),
    "an expression that doubles": (
        {"normalizer": replacing({"Regex": "ß"}, "ßß", 40)},
        "can make a text over 100 times as long",
    ),
    "a decoder that doubles": (
        {"decoder": replacing({"String": "e"}, "ee", 40) | {"type": "Sequence"}},
        "can make a text over 100 times as long",
    ),
    "a long replacement": (
        {"normalizer": replacing({"String": "e"}, "e" * 101, 1)},
        "can make a text over 100 times as long",
    ),
}


def with_tokenizer(path: Path, changes: dict[str, Any]) -> Path:
    model_files.folder(path)
    content = orjson.loads((path / "tokenizer.json").read_bytes()) | changes
    (path / "tokenizer.json").write_bytes(orjson.dumps(content))
    return path


@pytest.mark.parametrize("case", TOKENIZERS)
def test_a_tokenizer_that_does_not_end_is_refused(tmp_path: Path, case: str) -> None:
    changes, words = TOKENIZERS[case]
    source = with_tokenizer(tmp_path / "a", changes)
    with pytest.raises(ModelError, match=words) as caught:
        store.add(source)
    assert caught.value.where.startswith(str(source))
    assert caught.value.next_step
    assert store.listing() == []


def test_the_trial_itself_ends_a_tokenizer_that_multiplies(tmp_path: Path) -> None:
    changes = {"normalizer": replacing({"String": "q"}, "qq", 40)}
    source = with_tokenizer(tmp_path / "a", changes)
    with pytest.raises(
        ModelError, match=r"the tokenizer (did not end|could not be tested: memory)"
    ):
        template_probe.probe_template(source, source)


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": replacing({"String": " "}, "▁", 3)},
        {"normalizer": replacing({"String": "e"}, "e" * 100, 1)},
        {"pre_tokenizer": split_by(r"\p{L}+|\p{N}{1,3}")},
    ],
)
def test_a_usual_tokenizer_passes_the_trial(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert store.add(with_tokenizer(tmp_path / "a", changes)).name == "a"


def test_a_panic_in_use_is_said_in_words(tmp_path: Path) -> None:
    chat = Chat.load(with_tokenizer(tmp_path / "a", {"pre_tokenizer": split_by("(a+)+$")}))
    with pytest.raises(ModelError, match="the tokenizer gave up on a text: Onig"):
        chat.encode("a" * 3000 + "!")


def test_special_tokens_that_are_added_at_load_must_have_rows(tmp_path: Path) -> None:
    folder = model_files.folder(tmp_path / "a")
    settings = orjson.loads((folder / "tokenizer_config.json").read_bytes())
    new = [f"<|{i}|>" for i in range(tiny_llama.VOCAB - 258)]
    for beyond, tokens in ((False, new), (True, [*new, "<|one more|>"])):
        named = {"additional_special_tokens": tokens}
        (folder / "tokenizer_config.json").write_bytes(orjson.dumps(settings | named))
        if not beyond:
            assert Chat.load(folder).encode(tokens[-1]) == (tiny_llama.VOCAB - 1,)
            continue
        with pytest.raises(ModelError, match=r"token '<\|one more\|>' has the id 300"):
            Chat.load(folder)


@pytest.mark.parametrize("stops", ["<|end|>", [257, "x"], 1.5, {"a": 1}, True])
def test_stop_ids_must_be_ids(tmp_path: Path, stops: Any) -> None:
    folder = model_files.folder(tmp_path / "a")
    (folder / "generation_config.json").write_bytes(orjson.dumps({"eos_token_id": stops}))
    with pytest.raises(ModelError, match="eos_token_id must be a token id"):
        Chat.load(folder)


@pytest.mark.parametrize("content", [b"[]", b"{", b"7"])
@pytest.mark.parametrize("name", ["generation_config.json", "config.json", "tokenizer.json"])
def test_files_that_are_no_objects_are_refused_in_words(
    tmp_path: Path, name: str, content: bytes
) -> None:
    folder = model_files.folder(tmp_path / "a")
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        Chat.load(folder)
    assert str(folder) in caught.value.where
