"""`offapi compare` and `offapi curve` on a tiny model: arms are reused, killed and resumed."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
import recipe_folder

from offapi.compare.config import load_keys
from offapi.config.load import resolved
from offapi.report.story import make_story

KEYS = """
recipe = "compare"
task = "task.py"
documents = "train.jsonl"
test = "test.jsonl"
model = "model"
out = "runs"
device = "cpu"
label_minutes = 2.0
lora = { rank = 4, alpha = 8.0 }
"""
TABLES = """
[sft]
lr = 1e-2
epochs = 1.0
batch_size = 4
checkpoint_every = 2
[distill]
epochs = 8.0
batch_size = 4
checkpoint_every = 2
[filtered_sft]
epochs = 1.0
batch_size = 4
[grpo]
start = "base"
batch_size = 4
num_generations = 2
workers = 1
epochs = 0.25
"""
SUPERVISED = 'recipes = ["sft", "distill", "filtered_sft"]\nteacher = "recorded"\n'


def lay_out(folder: Path, keys: str = SUPERVISED, tables: str = TABLES) -> Path:
    """Write 16 documents, 4 with a wrong recorded label, and 10 to test on; return compare.toml."""
    recipe_folder.lay_out(folder, count=16, wrong=4)
    recipe_folder.write_jsonl(folder / "test.jsonl", recipe_folder.rows(40)[30:])
    model = f'model = "{folder / "model"}"'
    path = folder / "compare.toml"
    path.write_text(KEYS.replace('model = "model"', model) + keys + tables)
    return path


def offapi(*words: str, code: int = 0) -> dict[str, Any]:
    done = recipe_folder.offapi(*words, "--json")
    assert done.returncode == code, done.stderr
    told: dict[str, Any] = orjson.loads(done.stdout if code == 0 else done.stderr)
    return told


def tree(folder: Path) -> dict[str, int]:
    """Return every file below `folder` with the time of its last change."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


def trained(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return each trained arm: when its steps were written, and its answers to the test."""
    arms = [path.parent for path in sorted((folder / "runs/arms").glob("*/metrics.jsonl"))]
    return {
        arm.name: (
            (arm / "metrics.jsonl").stat().st_mtime_ns,
            next(arm.glob("test-*.jsonl")).read_bytes(),
        )
        for arm in arms
    }


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a comparison of the three supervised recipes."""
    file = lay_out(tmp_path_factory.mktemp("bench") / "all")
    done = recipe_folder.offapi("compare", str(file), "--backend", "torch")
    assert done.returncode == 0, done.stderr
    (file.parent / "stderr").write_text(done.stderr)
    return file


def test_one_table_shows_effort_and_accuracy_of_each_arm(bench: Path) -> None:
    told = orjson.loads((bench.parent / "runs/compare/compare.json").read_bytes())
    rows = told["rows"]
    assert list(rows) == ["recorded", "base", "sft", "distill", "filtered_sft"]
    assert [rows[recipe]["arm"]["rows"] for recipe in ("sft", "distill", "filtered_sft")] == [
        16,
        12,
        12,
    ]
    assert [
        rows[recipe]["cost"]["human_minutes"] for recipe in ("sft", "distill", "filtered_sft")
    ] == [
        32.0,
        0.0,
        0.0,
    ]
    assert all(
        rows[recipe]["cost"]["machine_minutes"] > 0 for recipe in ("sft", "distill", "filtered_sft")
    )
    assert rows["distill"]["arm"]["ceiling"]["right"]["mean"] == 0.75
    assert rows["filtered_sft"]["arm"]["ceiling"]["right"]["mean"] == 1.0
    assert rows["recorded"]["report"]["all_fields"]["mean"] == 1.0
    assert all(rows[recipe]["report"]["n"] == 10 for recipe in rows)
    for recipe in ("sft", "distill", "filtered_sft"):
        assert rows[recipe]["to_best"] is not None or recipe == told["best"]
        assert rows[recipe]["to_recorded"]["only_b"] == 10  # a tiny model has nothing right
        assert "cannot tell" in rows[recipe]["verdict"]
        assert Path(rows[recipe]["predictions"]).is_file()
    assert (told["correction"], told["take"]) == ("Holm over 6 pairs", "base")
    said = (bench.parent / "stderr").read_text()
    for words in (
        "rows used",
        "12 of 16",
        "your labels",
        "the teacher: 75.0",
        "minus the recorded",
        "Assumed: 2 min of",
    ):
        assert words in said


def test_its_report_shows_test_documents_and_the_command(bench: Path, tmp_path: Path) -> None:
    folder = bench.parent / "runs/compare"
    done = recipe_folder.offapi(
        "report", str(folder), "--out", str(tmp_path / "page.html"), "--json"
    )
    assert recipe_folder.told(done)["documents"] == 10
    story = make_story([folder])
    assert story.samples
    assert story.samples.systems[1] == "recorded"
    assert set(story.samples.systems) == {"recorded", "base", "sft", "distill", "filtered_sft"}
    assert all(
        row.document and row.flips for row in story.samples.rows
    )  # a tiny model has nothing right
    again = tmp_path / "again.toml"
    again.write_text(story.commands[0].text)
    asked = resolved(load_keys(bench))
    assert asked["dtype"] == "auto", "the page names what it came to on this machine"
    assert resolved(load_keys(again)) == {**asked, "dtype": "float32"}
    assert story.commands[1].text == "offapi compare compare.toml --backend torch"
    assert ", no 30" in (tmp_path / "page.html").read_text()


def test_a_second_call_repeats_nothing(bench: Path) -> None:
    before = tree(bench.parent / "runs/arms")
    done = recipe_folder.offapi(
        "compare", str(bench), "--backend", "torch", "--set", "label_minutes=5.0"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("already done") == 3
    assert tree(bench.parent / "runs/arms") == before


def test_what_an_arm_depends_on_makes_another_arm(bench: Path) -> None:
    before = trained(bench.parent)
    told = offapi("compare", str(bench), "--backend=torch", "--set=sft.lr=0.02", "--set=name=other")
    new = trained(bench.parent)
    assert new.items() > before.items()
    (made,) = new.keys() - before.keys()
    assert made.startswith("sft-")
    assert Path(told["rows"]["sft"]["arm"]["path"]).name == made
    counted = orjson.loads((bench.parent / "runs/arms" / made / "manifest.json").read_bytes())
    assert [one["n"] for one in counted["scored"]] == [10]


def test_a_dry_run_forecasts_and_writes_nothing(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "dry")
    before = tree(tmp_path)
    told = offapi(
        "compare", str(file), "--backend=torch", "--dry-run", "--set=recipes=['sft','grpo']"
    )
    assert tree(tmp_path) == before
    assert not (tmp_path / "dry/runs").exists()
    assert list(told["arms"]) == ["sft", "grpo"]
    assert all(
        arm["seconds"] > 0 and arm["memory_bytes"] > 0 and arm["kwh"] > 0
        for arm in told["arms"].values()
    )
    curve = offapi(
        "curve", str(file), "--backend=torch", "--dry-run", "--sizes=4,8,16", "--draws=2"
    )
    assert curve["points"] == 6
    assert curve["seconds"] > 0
    assert tree(tmp_path) == before


def test_a_killed_dry_run_leaves_no_document_behind(tmp_path: Path) -> None:
    file, temporary = lay_out(tmp_path / "dry"), tmp_path / "tmp"
    temporary.mkdir()
    words = recipe_folder.start("compare", str(file), "--backend", "torch", "--dry-run", "--plain")
    environment = {**recipe_folder.environment(), "TMPDIR": str(temporary)}
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env=environment)

    def rows() -> list[Path]:
        return [*file.parent.glob(".dry-run-*/*.jsonl"), *temporary.rglob("*.jsonl")]

    def written() -> bool:
        assert process.poll() is None, "it was over before it could be killed"
        return bool(rows())

    recipe_folder.until(written)
    assert not list(temporary.rglob("*.jsonl"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    recipe_folder.until(lambda: not rows() and not list(file.parent.glob(".dry-run-*")))


def test_killed_between_and_inside_arms_it_resumes(bench: Path, tmp_path: Path) -> None:
    """The arms have the same names in every folder, so that their results can be compared."""
    file = lay_out(tmp_path / "killed")
    arms = tmp_path / "killed/runs/arms"
    words = recipe_folder.start("compare", str(file), "--backend", "torch", "--plain")
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env=recipe_folder.environment())

    def in_the_second_arm() -> bool:
        assert process.poll() is None, "it was over before it could be killed"
        return any(arms.glob("sft-*/arm.json")) and any(arms.glob("distill-*/checkpoints/step-*"))

    recipe_folder.until(in_the_second_arm)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(arms.glob("filtered-sft-*")), "it was killed too late to tell"
    (first,) = arms.glob("sft-*")
    finished = (first / "metrics.jsonl").stat().st_mtime_ns
    done = recipe_folder.offapi("compare", str(file), "--backend", "torch")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("already done") == 1
    assert done.stderr.count("resuming") == 1
    assert "Resumed at step" in done.stderr
    assert (first / "metrics.jsonl").stat().st_mtime_ns == finished
    whole, broken = trained(bench.parent), trained(file.parent)
    assert broken.keys() <= whole.keys()
    assert len(broken) == 3
    assert {name: answers for name, (_, answers) in broken.items()} == {
        name: whole[name][1] for name in broken
    }
    (second,) = arms.glob("distill-*")
    assert recipe_folder.metrics(second) == recipe_folder.metrics(
        bench.parent / "runs/arms" / second.name
    )
    attempts = orjson.loads((second / "manifest.json").read_bytes())["attempts"]
    noted = {
        line["step"]: line["seconds"]
        for line in map(orjson.loads, (second / "seconds.jsonl").open("rb"))
    }
    assert len(attempts) == 2
    assert list(noted.values()) == sorted(noted.values()), (
        "the second attempt counts on from the checkpoint"
    )
    assert orjson.loads((second / "arm.json").read_bytes())["seconds"] >= max(noted.values())


def test_a_gate_that_fails_is_a_result(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "grpo", 'roads = ["grpo"]\n')
    told = offapi("compare", str(file), "--backend=torch")
    row = told["rows"]["grpo"]
    assert row["arm"]["gate"]
    assert row["arm"]["ceiling"] is None
    assert row["report"]["n"] == 10
    assert told["take"] == "base"
    again = recipe_folder.offapi("compare", str(file), "--backend", "torch")
    assert "grpo: already done" in again.stderr
    assert row["arm"]["gate"] in again.stderr
    assert "none" in again.stderr


def test_grpo_holds_out_documents_its_start_did_not_learn(tmp_path: Path) -> None:
    file = lay_out(
        tmp_path / "start",
        'roads = ["sft", "grpo"]\n',
        TABLES.replace('start = "base"', 'start = "sft"'),
    )
    told = offapi("compare", str(file), "--backend=torch")
    assert told["test"]["set_aside"] == 8
    assert told["rows"]["sft"]["arm"]["rows"] == 8
    arm = next((tmp_path / "start/runs/arms").glob("grpo-*"))
    looked = {
        orjson.loads(line)["id"]
        for line in (arm / "heldout-000000.jsonl").read_bytes().splitlines()
    }
    assert len(looked) == 8
    files = [
        path.read_bytes().splitlines()
        for path in (tmp_path / "start/runs/arms/data").glob("*.jsonl")
    ]
    read = [{orjson.loads(line)["id"] for line in lines} for lines in files]
    assert looked in read
    assert all(not ids & looked for ids in read if ids != looked)


def test_recipes_the_data_do_not_allow_are_left_out(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "none", "")
    rows = [{**row, "recorded_label": {"shop": "Nowhere Inc"}} for row in recipe_folder.rows(16)]
    recipe_folder.write_jsonl(tmp_path / "none/train.jsonl", rows)
    told = offapi("compare", str(file), "--backend=torch", "--set=minutes=1e-9")
    assert list(told["rows"]) == ["recorded", "base"]
    assert told["left_out"]["filtered_sft"].startswith("none of 16 traces is kept")
    assert "no teacher is named" in told["left_out"]["distill"]
    assert "allowed" in told["left_out"]["sft"]
    assert "allowed" in told["left_out"]["grpo"]
    refused = offapi("compare", str(file), "--backend=torch", "--set=roads=['distill']", code=2)
    assert "distill cannot run" in refused["message"]


def test_the_teachers_tokens_and_price_are_counted(tmp_path: Path) -> None:
    file = lay_out(tmp_path / "labels", 'roads = ["distill"]\nlabels = "labels.jsonl"\n')
    usage, common = (
        {"prompt_tokens": 1000, "completion_tokens": 100},
        {"status": "ok", "seconds": 0.1, "teacher": "t"},
    )
    rows = [*recipe_folder.rows(16), *recipe_folder.rows(40)[30:]]
    lines = [
        {
            "id": row["id"],
            "output": orjson.dumps(row["gold"]).decode(),
            "prompt_sha256": "",
            "usage": usage,
            **common,
        }
        for row in rows
    ]
    recipe_folder.write_jsonl(tmp_path / "labels/labels.jsonl", lines)
    told = offapi(
        "compare", str(file), "--backend=torch", "--set=price={prompt=1.0,completion=10.0}"
    )
    cost = told["rows"]["distill"]["cost"]
    assert cost["usage"] == {"prompt_tokens": 16_000, "completion_tokens": 1_600}
    assert cost["dollars"] == pytest.approx(0.032)
    assert (
        told["rows"]["teacher"]["report"]["all_fields"]["mean"] == 1.0
    )  # its labels hold the test documents too


def test_a_curve_resumes_and_shares_the_comparisons_arm(bench: Path) -> None:
    words = ["curve", str(bench), "--backend=torch", "--sizes=4,8,16", "--draws=2", "--want=0.9"]
    before = trained(bench.parent)
    told = offapi(*words)
    assert [(one["rows"], one["draw"]) for one in told["points"]] == [
        (4, 0),
        (8, 0),
        (16, 0),
        (4, 1),
        (8, 1),
        (16, 1),
    ]
    after = trained(bench.parent)
    assert (
        len(after.keys() - before.keys()) == 5
    )  # all sixteen rows, first draw: that is the comparison's
    assert {name: after[name] for name in before} == before
    assert told["answer"]["kind"] == "never"  # a tiny model has nothing right, however many rows
    assert orjson.loads((bench.parent / "runs/compare/curve-sft.json").read_bytes()) == told
    again = recipe_folder.offapi(*words)
    assert again.stderr.count("already done") == 6
    assert "More data of this kind will not reach 90%" in again.stderr
    kept = offapi(
        "curve",
        str(bench),
        "--backend=torch",
        "--sizes=8,12,16",
        "--draws=1",
        "--recipe=filtered_sft",
    )
    assert [one["rows"] for one in kept["points"]][
        -1
    ] == 12  # of sixteen, those that pass the checks


def test_a_curve_that_cannot_be_drawn_is_refused(bench: Path) -> None:
    words = ["curve", str(bench), "--road=distill", "--set=teacher=local:demo", "--sizes=4,8,16"]
    assert "offapi label" in offapi(*words, code=2)["message"]
    few = offapi("curve", str(bench), "--sizes=8,16", code=2)["message"]
    assert "16 rows" in few, few
