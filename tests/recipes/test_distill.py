"""Distillation from recorded labels and from a labels file: what fails a check is not learned."""

from pathlib import Path

import orjson
import recipe_folder


def test_only_what_passes_the_checks_is_learned(tmp_path: Path, backend_name: str) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", count=8, wrong=3, teacher="recorded")
    done = recipe_folder.offapi("train", str(recipe), "--backend", backend_name)
    assert done.returncode == 0, done.stderr
    assert (
        "Kept 5 of 8 labels. Failed checks: source 3. Dropped: below the threshold 3."
        in done.stderr
    )
    run = tmp_path / "runs" / "distill"
    grades = [orjson.loads(line) for line in (run / "grades.jsonl").read_bytes().splitlines()]
    assert [row["id"] for row in grades if row["score"] < 1] == ["d0", "d1", "d2"]
    assert grades[0]["checks"]["source"]["reason"] == "not in the document: shop"
    assert len(recipe_folder.metrics(run)) == 2 * 3  # five rows in batches of two, twice
    scored = orjson.loads((run / "manifest.json").read_bytes())["scored"]
    assert [entry["n"] for entry in scored] == [4]


def test_gold_is_never_used(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", count=8, teacher="recorded")
    assert recipe_folder.offapi("train", str(recipe)).returncode == 0
    without = recipe_folder.lay_out(tmp_path / "without", "distill", count=8, teacher="recorded")
    recipe_folder.write_jsonl(
        without.parent / "train.jsonl",
        [{k: v for k, v in row.items() if k != "gold"} for row in recipe_folder.rows(8)],
    )
    assert recipe_folder.offapi("train", str(without)).returncode == 0
    adapters = [
        path.parent / "runs/distill/adapter/adapter_model.safetensors" for path in (recipe, without)
    ]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


def test_a_labels_file_takes_the_teachers_place(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", count=6, wrong=1, labels="labels.jsonl")
    words = [
        "--task",
        str(tmp_path / "task.py"),
        "--data",
        str(tmp_path / "train.jsonl"),
        "--teacher",
        "recorded",
    ]
    labelled = recipe_folder.offapi("label", *words, "--out", str(tmp_path / "labels.jsonl"))
    assert labelled.returncode == 0, labelled.stderr
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 0, done.stderr
    assert "Kept 5 of 6 labels" in done.stderr


def test_an_endpoint_is_left_to_label(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", teacher="https://api.example.com/v1")
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 2
    assert (
        "`offapi label --teacher https://api.example.com/v1 ... --out labels.jsonl`, then set"
        in done.stderr
    )


def test_labels_have_no_groups_to_keep_by(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", teacher="recorded")
    for keep in ("{best = 1}", '{cap = 2, cap_by = "group"}'):
        done = recipe_folder.offapi("train", str(recipe), "--set", f"keep={keep}")
        assert done.returncode == 2
        assert "labels have no groups" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_no_kept_label_is_an_error_that_names_the_reasons(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", count=4, wrong=4, teacher="recorded")
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 1
    assert "none of 4 labels" in done.stderr
    assert "grades.jsonl" in done.stderr
