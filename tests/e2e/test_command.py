"""The installed `offapi` command, run as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from recipe_folder import Done, apart

Offapi = Callable[..., Done]


@pytest.fixture
def offapi(tmp_path: Path) -> Offapi:
    """Run `offapi ARGUMENTS` in a folder of its own."""

    return partial(apart, cwd=tmp_path)


def test_version_and_help(offapi: Offapi) -> None:
    assert offapi("--version").stdout.startswith("offapi, version 0.")
    done = offapi("--help")
    assert done.returncode == 0
    assert "init" in done.stdout


def test_init_writes_a_folder_that_loads(offapi: Offapi, tmp_path: Path) -> None:
    from offapi.config import load
    from offapi.data import documents, traces
    from offapi.recipes import distill, filtered_sft, sft
    from offapi.task import load_task

    done = offapi("init", "my-task", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    folder = tmp_path / "my-task"
    assert sorted(result["files"]) == sorted(path.name for path in folder.iterdir())
    loaded = load_task(folder / "task.py")
    for name in ("train.jsonl", "val.jsonl"):
        rows = documents.read(folder / name)
        assert len(rows) >= 16
        assert all(
            row.gold is not None and loaded.grade(row.text, loaded.answer_text(row.gold)).score > 0
            for row in rows
        )
    assert load.load(folder / "distill.toml", distill.Config).task == folder / "task.py"
    assert load.load(folder / "sft.toml", sft.Config).data == folder / "train.jsonl"
    assert (
        load.load(folder / "filtered_sft.toml", filtered_sft.Config).traces
        == folder / "traces.jsonl"
    )
    grades = [loaded.grade_trace(row).score for row in traces.read(folder / "traces.jsonl")]
    assert (len(grades), sum(score == 1 for score in grades)) == (72, 60)
    assert list(tmp_path.iterdir()) == [folder], "nothing else was left"


def test_init_overwrites_nothing(offapi: Offapi, tmp_path: Path) -> None:
    (tmp_path / "my-task").mkdir()
    (tmp_path / "my-task" / "notes.txt").write_text("mine")
    done = offapi("init", "my-task", "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert json.loads(done.stderr)["code"] == "config"
    assert [path.name for path in (tmp_path / "my-task").iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    assert offapi("init", "empty").returncode == 0


def test_a_run_that_is_missing_is_named(offapi: Offapi, tmp_path: Path) -> None:
    done = offapi("train", "no.toml")
    assert done.returncode == 2
    assert "no.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_is_not_utf_8_fits_into_json(offapi: Offapi) -> None:
    done = offapi("report", "run\udcff", "--json")
    assert done.returncode == 1
    assert "run\udcff" in json.loads(done.stderr)["message"]


def test_doctor_fails_on_a_damaged_model(
    offapi: Offapi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import model_files

    from offapi.models import store

    monkeypatch.setenv("OFFAPI_HOME", str(tmp_path / "home"))
    model = store.add(model_files.folder(tmp_path / "tiny"))
    weights = model.path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    done = offapi("doctor", "--json")
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout)
    found = {check["name"]: check for check in result["checks"]}
    assert found["model tiny"]["status"] == "failed"
    assert found["model tiny"]["remedy"]
    assert found["network guard"]["status"] == "ok"
    assert result["ok"] is False
    assert json.loads(done.stderr.splitlines()[-1])["code"] == "gate"
