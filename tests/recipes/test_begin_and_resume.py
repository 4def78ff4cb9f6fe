"""What a run may be called, how it is resumed, and that every command an error advises works."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import orjson
import pytest
import recipe_folder
from recipe_folder import offapi

from offapi.recipes import distill

SHORT = {"epochs": 1.0, "batch_size": 5, "checkpoint_every": 1}


def advised(said: str) -> list[list[str]]:
    """Return the words after `offapi` of the commands in a message."""
    commands = re.findall(r"`offapi ([^`]*)`", " ".join(said.split()))
    return [shlex.split(command) for command in commands]


def test_a_taken_name_offers_to_resume_and_the_next_free_name(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, **SHORT)
    words = ["train", str(recipe), "--set", "lr=1e-3"]
    assert offapi(*words).returncode == 0
    (tmp_path / "runs" / "sft-2").mkdir()
    refused = offapi(*words)
    assert refused.returncode == 1
    assert "a run of that name exists already" in refused.stderr
    resume, another = advised(refused.stderr)
    assert resume == [*words, "--resume"]
    assert another == [*words, "--set", "name=sft-3"]
    assert offapi(*resume).returncode == 0
    assert offapi(*another).returncode == 0
    assert (tmp_path / "runs" / "sft-3" / "adapter").is_dir()
    third = offapi(*words, "--set", "name=sft-3")
    assert advised(third.stderr)[1][-1] == "name=sft-4"


def test_ctrl_c_while_labelling_advises_a_command_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", 8, teacher="recorded")
    label_documents = distill.label_documents

    def interrupted(*arguments: object, **options: object) -> object:
        label_documents(*arguments, **options)  # type: ignore[arg-type]
        raise KeyboardInterrupt("All answers so far are kept; run the same command again.")

    with monkeypatch.context() as patch:
        patch.setattr(distill, "label_documents", interrupted)
        stopped = offapi("train", str(recipe))
    assert stopped.returncode == 130
    assert "run the same command again" not in stopped.stderr
    (command,) = advised(stopped.stderr)
    assert command == ["train", str(recipe), "--resume"]
    done = offapi(*command)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "distill" / "adapter").is_dir()


def test_ctrl_c_before_anything_is_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", 8, teacher="recorded")

    def interrupted(path: Path) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(distill, "read_documents", interrupted)
        stopped = offapi("train", str(recipe))
    assert stopped.returncode == 130
    assert "Nothing was written." in stopped.stderr
    assert advised(stopped.stderr) == [["train", str(recipe)]]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "name", ["", " ", "a\nb", "a\x1b[31mb", "a\u202eb", "-x", ".", "..", "a/b", "x" * 300, "ä" * 60]
)
def test_names_that_no_run_can_have(tmp_path: Path, name: str) -> None:
    recipe = recipe_folder.lay_out(tmp_path, **SHORT)
    value = "name=" + orjson.dumps(name).decode()
    done = offapi("train", str(recipe), "--set", value)
    assert done.returncode == 1
    assert "a run cannot be named" in done.stderr
    assert "\x1b[31m" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("epochs=1e12", "epochs must be above 0 and at most 100,000"),
        ("seed=36893488147419103232", "seed must be a whole number of 64 bits"),
        ("seed=-36893488147419103232", "seed must be a whole number of 64 bits"),
    ],
)
def test_numbers_that_cannot_be_meant(tmp_path: Path, key: str, words: str) -> None:
    done = offapi("train", str(recipe_folder.lay_out(tmp_path)), "--set", key)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert not (tmp_path / "runs").exists()


def half_done(folder: Path, backend_name: str) -> Path:
    """Lay out a run that has trained, and put it back to before its last checkpoint."""
    recipe = recipe_folder.lay_out(folder, **SHORT)
    assert offapi("train", str(recipe), "--backend", backend_name).returncode == 0
    run = folder / "runs" / "sft"
    shutil.rmtree(run / "adapter")
    shutil.rmtree(run / "checkpoints" / "step-000002")
    return recipe


def attempts(run: Path) -> list[str]:
    manifest = orjson.loads((run / "manifest.json").read_bytes())
    return [attempt["backend"] for attempt in manifest["attempts"]]


def test_a_run_is_resumed_on_the_backend_it_began_with(tmp_path: Path) -> None:
    recipe = half_done(tmp_path, "mlx")
    done = offapi("train", str(recipe), "--resume")
    assert done.returncode == 0, done.stderr
    assert "This run began on" not in done.stderr
    assert attempts(tmp_path / "runs" / "sft") == ["mlx", "mlx"]


def test_another_backend_is_said_and_noted(tmp_path: Path) -> None:
    recipe = half_done(tmp_path, "mlx")
    done = offapi("train", str(recipe), "--resume", "--backend", "torch")
    assert done.returncode == 0, done.stderr
    assert "This run began on mlx and continues on torch" in " ".join(done.stderr.split())
    assert attempts(tmp_path / "runs" / "sft") == ["mlx", "torch"]


def test_a_moved_run_is_resumed_and_changed_data_are_not(tmp_path: Path) -> None:
    half_done(tmp_path / "here", "torch")
    moved = tmp_path / "there"
    (tmp_path / "here").rename(moved)
    recipe = moved / "sft.toml"
    text = recipe.read_text().replace(str(tmp_path / "here"), str(moved))
    recipe.write_text(text)
    link = tmp_path / "link"
    link.symlink_to(moved)
    done = offapi("train", str(link / "sft.toml"), "--resume")
    assert done.returncode == 0, done.stderr
    assert "Resumed at step" in done.stderr
    rows = recipe_folder.rows(10)
    recipe_folder.write_jsonl(moved / "train.jsonl", rows[:9])
    changed = offapi("train", str(recipe), "--resume")
    assert changed.returncode == 1
    assert "sha256.data was" in changed.stderr


def test_a_run_without_val_says_so_first_and_last(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, **SHORT)
    recipe.write_text(recipe.read_text().replace('val = "val.jsonl"\n', ""))
    done = offapi("train", str(recipe))
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    words = "The recipe names no `val`, so the run ends without an accuracy."
    assert said.count(words) == 2
    assert said.index(words) < said.index("Training on 10 rows") < said.rindex(words)
    assert f"`offapi eval --adapter {tmp_path / 'runs/sft/adapter'}`" in said
