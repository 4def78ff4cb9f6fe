"""`offapi train` with the sft recipe, as a user runs it, on both backends."""

import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import recipe_folder
from safetensors.numpy import load_file

from offapi import adapter
from offapi.report.story import make_story


def test_trains_scores_and_keeps_everything(tmp_path: Path, backend_name: str) -> None:
    recipe = recipe_folder.lay_out(tmp_path, epochs=4.0)
    done = recipe_folder.offapi("train", str(recipe), "--backend", backend_name, "--json")
    assert done.returncode == 0, done.stderr
    result = orjson.loads(done.stdout)
    run = Path(result["run"])
    assert run == tmp_path / "runs" / "sft"
    lines = recipe_folder.metrics(run)
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    assert result["report"]["n"] == 4
    assert set(result["report"]["fields"]) == {"shop"}
    predictions = (run / "predictions.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["id"] for line in predictions] == ["d20", "d21", "d22", "d23"]
    spec, arrays = adapter.read(run / "adapter")
    assert spec.rank == 4
    assert any(abs(array).max() > 0 for name, array in arrays.items() if "lora_B" in name)
    manifest = orjson.loads((run / "manifest.json").read_bytes())
    assert manifest["backend"] == backend_name
    assert set(manifest["sha256"]) == {"task", "data", "val", "model"}


def test_set_overrides_the_file_and_is_in_the_manifest(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path)
    done = recipe_folder.offapi(
        "train", str(recipe), "--set", "epochs=0.5", "--set", "lora.rank=2", "--set", "name=other"
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "other"
    assert len(recipe_folder.metrics(run)) == 2
    assert orjson.loads((run / "manifest.json").read_bytes())["config"]["lora"]["rank"] == 2
    assert load_file(run / "adapter" / adapter.WEIGHTS)


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["--set", "lr=fast"], ["--set lr=fast"]),
        (["--set", "lerning_rate=1"], ["unknown key 'lerning_rate'"]),
        (["--set", "model=nowhere"], ["no model 'nowhere'"]),
        (["--backend", "jax"], ["unknown backend 'jax'", "mlx, torch"]),
        (["--set", "max_tokens=20"], ["has", "tokens, more than max_tokens = 20", "on_long"]),
    ],
)
def test_mistakes_are_reported_and_leave_nothing(
    tmp_path: Path, words: list[str], messages: list[str]
) -> None:
    recipe = recipe_folder.lay_out(tmp_path)
    done = recipe_folder.offapi("train", str(recipe), *words, "--json")
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    for part in messages:
        assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_rows_name_file_line_and_field(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path)
    lines = recipe_folder.rows(3)
    lines[1]["document"] = 7
    recipe_folder.write_jsonl(tmp_path / "train.jsonl", lines)
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 1
    assert "train.jsonl, line 2, field 'document'" in done.stderr
    assert not (tmp_path / "runs" / "sft").exists()


def test_a_row_without_the_answer_to_learn_is_named(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path)
    lines = recipe_folder.rows(3)
    del lines[2]["gold"]
    recipe_folder.write_jsonl(tmp_path / "train.jsonl", lines)
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 1
    assert "'d2' has no gold" in done.stderr


def test_chats_are_learned_whole(tmp_path: Path, backend_name: str) -> None:
    recipe = recipe_folder.lay_out(tmp_path, learn="chats")
    chats = [
        {
            "id": f"c{i}",
            "messages": [
                {"role": "user", "content": "say a"},
                {"role": "assistant", "content": "a" * 5},
            ],
        }
        for i in range(4)
    ]
    recipe_folder.write_jsonl(tmp_path / "train.jsonl", chats)
    done = recipe_folder.offapi("train", str(recipe), "--backend", backend_name)
    assert done.returncode == 0, done.stderr
    assert recipe_folder.metrics(tmp_path / "runs" / "sft")[0]["tokens"] == 2 * (5 + 1)


def test_the_console_is_kept_in_the_run_over_all_attempts(
    tmp_path: Path, backend_name: str
) -> None:
    recipe = recipe_folder.lay_out(tmp_path)
    words = ("train", str(recipe), "--backend", backend_name)
    first = recipe_folder.offapi(*words)
    assert first.returncode == 0, first.stderr
    path = tmp_path / "runs" / "sft" / "console.log"
    assert path.stat().st_mode & 0o777 == 0o600
    kept = path.read_text()
    for said in (
        "Loading the model ...",
        "Training on 10 rows",
        "training: 10/10, loss",
        "Adapter:",
    ):
        assert said in kept
        assert said in first.stderr
    assert kept.count("training: ") == 1
    assert re.search(r"\n *shop +\d", kept)
    again = recipe_folder.offapi(*words, "--resume", "--set", "lr=1")
    assert again.returncode == 1
    more = path.read_text().removeprefix(kept)
    assert more.splitlines()[0].startswith("--- 20")
    assert "error: config.lr was 0.01 when this run began and is 1.0 now." in more


def test_a_failed_attempt_keeps_its_reason(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path)
    assert recipe_folder.offapi("train", str(recipe)).returncode == 0
    assert recipe_folder.offapi("train", str(recipe), "--resume", "--set", "lr=1").returncode == 1
    run = tmp_path / "runs" / "sft"
    first, last = orjson.loads((run / "manifest.json").read_bytes())["attempts"]
    assert "error" not in first
    assert last["outcome"] == "failed"
    assert last["error"]["code"] == "run"
    assert last["error"]["what"].startswith("config.lr was 0.01")
    story = make_story([run])
    assert "config.lr was 0.01" in story.notes[0].text
    assert "start a new run" in story.notes[0].text
    (resume,) = (one for one in story.commands if "--resume" in one.text)
    assert "once the reason" in resume.what


@pytest.mark.parametrize("key", ["data", "val"])
def test_a_wrong_path_is_reported_before_a_library_is_imported(tmp_path: Path, key: str) -> None:
    recipe = recipe_folder.lay_out(tmp_path)
    words = ["train", str(recipe), "--set", f"{key}={tmp_path}/nowhere.jsonl"]
    code = f"import sys; from offapi import cli; print(cli.run({words!r}), 'torch' in sys.modules"
    code += ", 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "1 False False\n", done.stderr
    assert "nowhere.jsonl" in done.stderr
