"""`offapi calibrate` as a user runs it, on both backends: promised, used, watched, withdrawn."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import pytest
import tiny_llama
from recipe_folder import TASK, Done, offapi, told, write_jsonl

from offapi.confidence.promise import WHOLE

RECIPE = """
recipe = "sft"
task = "task.py"
data = "train.jsonl"
model = "model"
out = "runs"
epochs = 1.0
[lora]
rank = 4
"""
RUN = "runs/sft"
NEEDS = {"torch": ("torch", "peft"), "mlx": ("mlx", "mlx_lm")}
COUNT, WRONG = 70, 5


def documents(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": f"d{i}", "document": f"letter {i * 37} from shop {i}, no {i * 11}"}
        for i in range(first, first + count)
    ]


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny trained run, with everything it was made from."""
    folder = tmp_path_factory.mktemp("trained")
    tiny_llama.write_chat(folder / "model")
    (folder / "task.py").write_text(TASK)
    (folder / "sft.toml").write_text(RECIPE)
    gold = [{**row, "gold": {"shop": "Ash"}} for row in documents(4, first=900)]
    write_jsonl(folder / "train.jsonl", gold)
    done = offapi("train", "sft.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(params=sorted(NEEDS))
def bench(request: pytest.FixtureRequest, trained: Path, tmp_path: Path) -> tuple[Path, str]:
    """Return a folder with the run and reviewed documents, and the backend.

    Gold is what the model answers, but for the last few documents: so it is known what is right.
    """
    backend = request.param
    missing = [library for library in NEEDS[backend] if find_spec(library) is None]
    if missing:
        pytest.skip(f"{backend}: {', '.join(missing)} not installed")
    folder = tmp_path / "bench"
    shutil.copytree(trained, folder)
    manifest = folder / RUN / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(os.fsencode(trained), os.fsencode(folder)))
    write_jsonl(folder / "docs.jsonl", documents(COUNT))
    words = ("docs.jsonl", "--out=first.jsonl", "--signals", "--backend", backend)
    done = offapi("predict", RUN, *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    reviewed, answers = [], read_rows(folder / "first.jsonl")
    for i, (document, row) in enumerate(zip(documents(COUNT), answers, strict=True)):
        shop = row["answer"]["shop"] if i < COUNT - WRONG else "quite another"
        reviewed.append({**document, "gold": {"shop": shop}})
    write_jsonl(folder / "reviewed.jsonl", [*reviewed, *read_rows(folder / "train.jsonl")])
    return folder, backend


def calibrate(bench: tuple[Path, str], *words: str) -> Done:
    folder, backend = bench
    data = ("--data", "reviewed.jsonl", "--backend", backend)
    return offapi("calibrate", RUN, *data, *words, cwd=folder)


def test_a_run_is_calibrated_used_watched_and_withdrawn(bench: tuple[Path, str]) -> None:
    folder, backend = bench
    done = calibrate(bench, "--error", "0.25")
    assert done.returncode == 0, done.stderr
    made = orjson.loads((folder / RUN / "calibration.json").read_bytes())
    assert "4 of 74 documents are left out: the student learned it" in done.stderr
    assert "scored once for this run" in done.stderr
    assert made["data"]["documents"] == COUNT
    values = made["fields"]["shop"]["values"]
    assert values["accepted"] >= COUNT - WRONG - 10
    assert made["quality"][WHOLE]["right"]["mean"] == pytest.approx((COUNT - WRONG) / COUNT)

    again = calibrate(bench, "--error", "0.01")
    assert again.returncode == 0, again.stderr
    assert "to answer" not in again.stderr  # its answers were kept
    assert "70 documents, and at least 368 are needed" in again.stderr
    told(calibrate(bench, "--error", "0.25", "--signals", "first.jsonl", "--json"))

    words = ("docs.jsonl", "--backend", backend)
    used = told(offapi("predict", RUN, *words, "--out=used.jsonl", "--json", cwd=folder))
    assert used["accepted_fields"] == {"shop": values["accepted"]}

    rows = read_rows(folder / "used.jsonl")
    right = [{**row, "gold": row["answer"]} for row in rows]
    write_jsonl(folder / "right.jsonl", right)
    kept = offapi("drift", "--promise", RUN, "--fresh", "right.jsonl", cwd=folder)
    assert (kept.returncode, "KEPT" in kept.stderr) == (0, True)
    write_jsonl(folder / "wrong.jsonl", [{**row, "gold": {"shop": "no"}} for row in rows])
    broken = offapi("drift", "--promise", RUN, "--fresh", "wrong.jsonl", cwd=folder)
    assert (broken.returncode, "WITHDRAWN" in broken.stderr) == (3, True)
    later = offapi("predict", RUN, *words, "--out=later.jsonl", cwd=folder)
    assert "The promise was withdrawn on" in later.stderr
    assert "Accepted by field: shop 0." in later.stderr


def test_answers_of_another_model_or_without_signals_are_refused(bench: tuple[Path, str]) -> None:
    folder, backend = bench
    words = ("docs.jsonl", "--out=plain.jsonl", "--backend", backend)
    assert offapi("predict", RUN, *words, cwd=folder).returncode == 0
    assert "there are no signals" in calibrate(bench, "--signals", "plain.jsonl").stderr
    (folder / "task.py").write_text(TASK.replace("Name the shop", "Name the shop, please"))
    assert "come from another task" in calibrate(bench, "--signals", "first.jsonl").stderr
    (folder / "first.jsonl.key.json").unlink()
    assert "is missing" in calibrate(bench, "--signals", "first.jsonl").stderr


def test_both_backends_promise_the_same(
    bench: tuple[Path, str],
) -> None:
    folder, backend = bench
    other = "mlx" if backend == "torch" else "torch"
    if backend == "mlx" or any(find_spec(library) is None for library in NEEDS[other]):
        pytest.skip("one backend is enough to compare both, if both are here")
    figures = []
    for name in (backend, other):
        (folder / RUN / "calibration-answers.jsonl").unlink(missing_ok=True)
        (folder / RUN / "calibration-answers.jsonl.key.json").unlink(missing_ok=True)
        made = told(calibrate((folder, name), "--error", "0.25", "--json"))
        figures.append(made["fields"]["shop"])
    one, two = figures
    assert one["values"]["accepted"] == two["values"]["accepted"]
    assert one["values"]["at"] == pytest.approx(two["values"]["at"], abs=1e-3)
    assert one["model"]["weights"] == pytest.approx(two["model"]["weights"], abs=1e-2)
