"""A task that answers with text goes the whole way: every recipe and command takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import recipe_folder
import reply_folder

CHECKS = ["length", "signed", "no promise", "near gold"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reply_folder.lay_out(tmp_path_factory.mktemp("replies"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def recipe(folder: Path, name: str, **keys: Any) -> str:
    """Write a recipe file of the folder and return its path."""
    settings = {"recipe": name, "name": name, "task": "task.py", "model": "model", "out": "runs"}
    settings |= {"epochs": 1.0, "warmup_steps": 1, "max_tokens": 400, **keys}
    text = "".join(f"{key} = {orjson.dumps(value).decode()}\n" for key, value in settings.items())
    (folder / f"{name}.toml").write_text(text + "\n[lora]\nrank = 2\nalpha = 4.0\n")
    return str(folder / f"{name}.toml")


def run(folder: Path, *words: str) -> dict[str, Any]:
    return recipe_folder.told(recipe_folder.offapi(*words, "--json", cwd=folder))


def test_eval_reports_by_check_and_names_what_failed(folder: Path, backend_name: str) -> None:
    words = ["eval", "--task", "task.py", "--data", "val.jsonl", "--model", "./model"]
    done = recipe_folder.offapi(*words, "--backend", backend_name, "--json", cwd=folder)
    result = recipe_folder.told(done)
    assert list(result["fields"]) == CHECKS
    assert result["fields"]["length"]["mean"] == 1.0
    assert result["fields"]["signed"]["mean"] == result["all_fields"]["mean"] == 0.75
    assert list(result["audit"]) == ["customer"], "an audit is reported, and makes nothing wrong"
    answers = {row["id"]: row for row in lines(folder / "predictions.jsonl")}
    assert "reasons" not in answers["m20"]
    assert answers["m23"]["reasons"]["signed"] == "'Kind regards' is missing"
    assert answers["m23"]["value"] == "We guarantee a refund"
    assert answers["m23"]["gold"].startswith("Dear Ann")
    shown = recipe_folder.offapi(*words, cwd=folder).stderr
    assert "all checks" in shown
    assert "customer (audit)" in shown
    against = run(folder, "eval", "predictions.jsonl", "--against", "predictions.jsonl")
    assert list(against["fields"]) == CHECKS
    assert against["fields"]["signed"]["a"]["mean"] == 0.75


def test_sampled_answers_are_scored_by_check(folder: Path) -> None:
    words = ["eval", "--task", "task.py", "--data", "val.jsonl", "--model", "./model"]
    result = run(folder, *words, "--samples", "2", "--out", "sampled.jsonl")
    assert list(result["fields"]) == CHECKS
    assert result["fields"]["length"]["mean"] == 1.0


def test_an_untouched_document_needs_no_gold_where_no_check_does(folder: Path) -> None:
    goldless = (
        (folder / "task.py").read_text().replace('"near gold": (similar_to_gold(50), 1.0),', "")
    )
    (folder / "goldless.py").write_text(goldless)
    rows = [{**row, "gold": None} for row in reply_folder.rows(4, first=40)]
    recipe_folder.write_jsonl(folder / "goldless.jsonl", rows)
    words = ["--data", "goldless.jsonl", "--model", "./model", "--out", "goldless-out.jsonl"]
    result = run(folder, "eval", "--task", "goldless.py", *words)
    assert result["all_fields"]["mean"] == 0.75
    assert run(folder, "eval", "goldless-out.jsonl", "--against", "goldless-out.jsonl")["n"] == 4
    refused = recipe_folder.offapi("eval", "--task", "task.py", *words, cwd=folder)
    assert refused.returncode == 1
    assert "no gold" in refused.stderr
    assert "offapi grade" in refused.stderr


def test_sft_learns_the_texts(folder: Path) -> None:
    result = run(folder, "train", recipe(folder, "sft", data="train.jsonl", val="val.jsonl"))
    assert list(result["report"]["fields"]) == CHECKS
    assert (folder / "runs/sft/report.json").exists()


def test_distill_keeps_the_labels_that_pass_the_checks(folder: Path) -> None:
    run(
        folder,
        "label",
        "--task",
        "task.py",
        "--data",
        "train.jsonl",
        "--teacher",
        "recorded",
        "--out",
        "labels.jsonl",
    )
    assert lines(folder / "labels.jsonl")[3]["output"] == "We guarantee a refund"
    (folder / "graded.py").write_text(
        (folder / "task.py").read_text().replace('"near gold": (similar_to_gold(50), 1.0),', "")
    )
    path = recipe(
        folder,
        "distill",
        data="train.jsonl",
        labels="labels.jsonl",
        task="graded.py",
        val="val.jsonl",
    )
    result = run(folder, "train", path)
    grading = orjson.loads((folder / "runs/distill/grading.json").read_bytes())
    assert grading["kept"] == 9, "three of twelve promise a refund"
    assert result["report"]["n"] == 8


def test_filtered_sft_learns_recorded_texts_and_compares_with_its_control(folder: Path) -> None:
    path = recipe(folder, "filtered_sft", traces="train.jsonl", val="val.jsonl")
    assert run(folder, "train", path)["report"]["n"] == 8
    comparison = orjson.loads((folder / "runs/filtered_sft/comparison.json").read_bytes())
    assert list(comparison["fields"]) == CHECKS
    for flags in ([], ["--md"]):
        done = recipe_folder.offapi("report", "runs/filtered_sft", *flags, cwd=folder)
        assert done.returncode == 0, done.stderr
    report = (folder / "runs/filtered_sft/report.md").read_text()
    assert "✗ 'Kind regards' is missing" in report
    assert "Dear Ann, your parcel comes on day 23." in report, "gold is shown, to be read"


def test_grpo_rewards_all_but_gold_and_audits_by_it(folder: Path) -> None:
    path = recipe(
        folder, "grpo", data="train.jsonl", val="val.jsonl", num_generations=2, batch_size=4
    )
    done = recipe_folder.offapi("train", path, "--allow", "signal", cwd=folder)
    assert done.returncode in (0, 3), done.stderr
    first = recipe_folder.metrics(folder / "runs/grpo")[0]
    audited = {name for name in first if name.startswith("heldout/audit/")}
    assert audited == {"heldout/audit/customer", "heldout/audit/near gold"}
    assert first["heldout/audit/near gold"] == pytest.approx(0.75, abs=0.01)


def test_grading_and_drift_read_texts(folder: Path) -> None:
    graded = run(
        folder,
        "grade",
        "--task",
        "task.py",
        "--traces",
        "train.jsonl",
        "--kept",
        "kept.jsonl",
        "--out",
        "graded.jsonl",
    )
    assert graded["kept"] == 9
    recipe_folder.write_jsonl(folder / "first.jsonl", reply_folder.rows(40, first=100))
    recipe_folder.write_jsonl(folder / "fresh.jsonl", reply_folder.rows(8, first=200))
    done = recipe_folder.offapi(
        "drift",
        "--task",
        "task.py",
        "--reference",
        "first.jsonl",
        "--fresh",
        "fresh.jsonl",
        cwd=folder,
    )
    assert done.returncode in (0, 3), done.stderr


def test_comparison_and_curve_take_texts(folder: Path) -> None:
    recipe_folder.write_jsonl(folder / "test.jsonl", reply_folder.rows(6, first=60))
    text = (
        'recipe = "compare"\nname = "compare"\ntask = "task.py"\ndocuments = "train.jsonl"\n'
        'test = "test.jsonl"\nmodel = "model"\nrecipes = ["sft", "filtered_sft"]\n'
        "[lora]\nrank = 2\nalpha = 4.0\n[sft]\nepochs = 1.0\nwarmup_steps = 1\n"
        "[filtered_sft]\nepochs = 1.0\nwarmup_steps = 1\n"
    )
    (folder / "compare.toml").write_text(text)
    result = run(folder, "compare", "compare.toml")
    assert {"base", "recorded", "sft", "filtered_sft"} <= set(result["rows"])
    assert result["rows"]["recorded"]["report"]["all_fields"]["mean"] == pytest.approx(5 / 6)
    curve = run(folder, "curve", "compare.toml", "--sizes", "4,8,12", "--draws", "1")
    assert [point["rows"] for point in curve["points"]] == [4, 8, 12]
    assert recipe_folder.offapi("report", "runs/compare", cwd=folder).returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema=None,", 'schema=None, match={"a": "text"},', "match compares fields"),
        ("length(10, 200)", "offapi.checks.is_json", "checks['length'] reads a JSON object"),
        ("length(10, 200)", 'offapi.checks.in_range("total", 0)', "reads a JSON object"),
        ('"Dear Eve, sorry. Kind regards, Shop"', '{"reply": "Dear Eve"}', "must be a text"),
        ('"Dear Eve, sorry. Kind regards, Shop"', '" "', "must be a text"),
        ('must_contain("Kind regards")', 'must_contain("")', "must_contain needs texts"),
        ("similar_to_gold(50)", "similar_to_gold(160)", "threshold must be from 1 to 100"),
    ],
)
def test_a_task_of_text_refuses_what_needs_fields(
    folder: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    task = (folder / "task.py").read_text().replace("import offapi\n", "import offapi.checks\n", 1)
    assert old in task
    (tmp_path / "task.py").write_text(task.replace(old, new))
    done = recipe_folder.offapi(
        "grade", "--task", str(tmp_path / "task.py"), "--traces", "train.jsonl", cwd=folder
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "task.py, line" in done.stderr


@pytest.mark.parametrize("key", ["gold", "recorded_label"])
def test_text_and_object_are_not_taken_for_each_other(
    folder: Path, tmp_path: Path, key: str
) -> None:
    """Gold and recorded answers: a text for a task of fields, an object for a task of text."""
    row = {**reply_folder.rows(1)[0], key: {"reply": "Dear Ann"}}
    recipe_folder.write_jsonl(folder / "odd.jsonl", [row])
    path = recipe(folder, "sft", data="odd.jsonl", learn=key, out=f"odd-{key}")
    done = recipe_folder.offapi("train", path, cwd=folder)
    assert done.returncode == 1
    assert "must be a text" in done.stderr
    assert "'m0'" in done.stderr
    path = str(recipe_folder.lay_out(tmp_path, learn=key))
    row = {**recipe_folder.rows(1)[0], key: '{"shop": "Ash"}'}
    recipe_folder.write_jsonl(tmp_path / "train.jsonl", [row])
    done = recipe_folder.offapi("train", path, cwd=tmp_path)
    assert done.returncode == 1
    assert "must be an object" in done.stderr
    assert "'d0'" in done.stderr
    assert not (tmp_path / "runs").exists()
