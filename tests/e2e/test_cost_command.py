"""`offapi cost` as a user runs it: the example, flags, a measured run, mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest
import tiny_llama
from recipe_folder import TASK, offapi, told, write_jsonl

RECIPE = """
recipe = "sft"
task = "task.py"
data = "train.jsonl"
val = "val.jsonl"
model = "model"
out = "runs"
epochs = 1.0
[lora]
rank = 4
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the example of a costs file, and a tiny trained run."""
    folder = tmp_path_factory.mktemp("bench")
    tiny_llama.write_chat(folder / "model")
    (folder / "task.py").write_text(TASK)
    (folder / "sft.toml").write_text(RECIPE)
    rows = [
        {"id": f"d{i}", "document": f"from {shop}", "gold": {"shop": shop}}
        for i, shop in enumerate(("Ash", "Elm"))
    ]
    write_jsonl(folder / "val.jsonl", rows)
    learned = [
        {"id": f"t{i}", "document": f"bought at {shop} by card", "gold": {"shop": shop}}
        for i, shop in enumerate(("Ash", "Elm"))
    ]
    write_jsonl(folder / "train.jsonl", learned)
    done = offapi("train", "sft.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert offapi("cost", "--example=costs.toml", cwd=folder).returncode == 0
    return folder


def test_the_example_for_people_and_for_programs(bench: Path) -> None:
    people = offapi("cost", "--from=costs.toml", cwd=bench)
    assert (people.returncode, people.stdout) == (0, "")
    for message in (
        "owned",
        "bought",
        "rented",
        "break-even, requests a month",
        "what matters most",
        "assumed",
        "2026-11",
    ):
        assert message in people.stderr
    assert people.stderr.startswith("Stay on the API: "), "the verdict comes first"
    assert people.stderr.index("break-even") < people.stderr.index("likely (low to high)")
    found = told(offapi("cost", "--from=costs.toml", "--json", cwd=bench))
    assert found["verdict"] == "stay on the API"
    assert found["prices_dated"] == "2026-11"
    assert list(found["cases"]) == ["owned", "bought", "rented"]
    assert found["cases"]["owned"]["break_even_requests"]["likely"] > 50_000
    assert told(offapi("cost", "--from=costs.toml", "--json", cwd=bench)) == found, (
        "the seed is fixed"
    )


def test_flags_override_files_and_later_files_earlier_ones(bench: Path) -> None:
    (bench / "more.toml").write_text('requests = 3000000\ncurrency = "€"\n')
    found = told(offapi("cost", "--from=costs.toml", "--from=more.toml", "--json", cwd=bench))
    assert (found["inputs"]["requests"]["source"], found["currency"]) == ("more.toml", "€")
    assert found["verdict"] == "pays"
    words = ["cost", "--from=costs.toml", "--from=more.toml", "--requests=1000:2000:3000", "--json"]
    found = told(offapi(*words, cwd=bench))
    assert found["inputs"]["requests"] == {
        "low": 1000,
        "likely": 2000,
        "high": 3000,
        "source": "--requests",
    }
    assert found["verdict"] == "stay on the API"


def test_files_override_what_a_run_recorded(bench: Path) -> None:
    found = told(offapi("cost", "--from=costs.toml", "--run=runs/sft", "--json", cwd=bench))
    assert found["inputs"]["training_hours"]["source"] == "sft: attempts in manifest.json"
    assert found["inputs"]["own_tokens"]["source"] == "sft: 2 answers in predictions.jsonl"
    assert found["inputs"]["seconds"]["source"] == "costs.toml"


def test_the_tokens_of_a_runs_answers_by_hand(bench: Path) -> None:
    """The tiny tokenizer's tokens are bytes: two and four, and one end each."""
    shutil.copytree(bench / "runs/sft", bench / "runs/copy")
    row = {"value": None, "correct": {"shop": False}, "gold": {"shop": "Ash"}}
    rows = [{"id": "a", "output": "ab", **row}, {"id": "b", "output": "abcd", **row}]
    write_jsonl(bench / "runs/copy/predictions.jsonl", rows)
    found = told(offapi("cost", "--from=costs.toml", "--run=runs/copy", "--json", cwd=bench))
    assert found["inputs"]["own_tokens"]["likely"] == 4.0


def test_a_run_that_is_measured(bench: Path) -> None:
    """A measurement overrides the file's guess, and scores nothing."""
    before = (bench / "runs/sft/manifest.json").read_bytes()
    words = ["cost", "--from=costs.toml", "--run=runs/sft", "--measure=2", "--json"]
    found = told(offapi(*words, cwd=bench))
    assert found["inputs"]["seconds"]["source"].startswith("measured on 2 documents, ")
    assert 0 < found["inputs"]["seconds"]["likely"] < 5
    assert found["inputs"]["own_tokens"]["likely"] <= 20
    assert (bench / "runs/sft/manifest.json").read_bytes() == before


def test_a_measurement_of_eval_overrides_a_files_guess(bench: Path) -> None:
    evaluated = offapi(
        "eval", "--task=task.py", "--data=val.jsonl", "--model=model", "--json", cwd=bench
    )
    (bench / "eval.json").write_text(evaluated.stdout)
    found = told(offapi("cost", "--from=costs.toml", "--run=eval.json", "--json", cwd=bench))[
        "inputs"
    ]
    measured = orjson.loads(evaluated.stdout)
    assert found["seconds"]["likely"] == pytest.approx(measured["seconds"] / 2)
    assert found["own_tokens"]["likely"] == measured["completion_tokens"] / 2
    assert (
        found["seconds"]["source"]
        == found["own_tokens"]["source"]
        == "eval.json: measured on 2 answers"
    )
    assert "eval.json" not in found["training_hours"]["source"]
    (bench / "eval.json").write_bytes(orjson.dumps({**measured, "samples": 2}))
    sampled = told(offapi("cost", "--from=costs.toml", "--run=eval.json", "--json", cwd=bench))[
        "inputs"
    ]
    assert sampled["own_tokens"]["likely"] == measured["completion_tokens"] / 4


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "--requests"),
        (["--measure=2"], 2, "no effect without --run"),
        (["--from=none.toml"], 2, "cannot be read"),
        (["--from=typo.toml"], 2, "unknown key 'price_inn'"),
        (["--from=costs.toml", "--tariff=cheap"], 2, "number or low:likely:high"),
        (["--from=costs.toml", "--tokens-per-second=1", "--seconds=1"], 2, "two ways to give"),
        (["--from=costs.toml", "--run=runs/sft2"], 1, "there is no run here"),
        (["--from=costs.toml", "--run=other", "--measure=1"], 2, "it has no model"),
        (
            ["--from=costs.toml", "--run=old.json"],
            1,
            "old.json: the file must be the JSON of `offapi eval --json`: Object missing required",
        ),
        (
            ["--from=costs.toml", "--run=none.json"],
            1,
            "none.json: the file must be the JSON of `offapi eval --json`: must be a whole number >= 1",
        ),
        (
            ["--from=costs.toml", "--run=costs.toml"],
            1,
            "costs.toml: the file must be the JSON of `offapi eval --json`: JSON is malformed",
        ),
        (["--from=costs.toml", "--run=old.json", "--measure=1"], 1, "there is no run here"),
        (["--example=costs.toml"], 2, "the file already exists"),
        (["--prices=x"], 2, "No such option"),
    ],
)
def test_mistakes_are_reported(bench: Path, words: list[str], code: int, message: str) -> None:
    (bench / "typo.toml").write_text("price_inn = 1\n")
    (bench / "old.json").write_text('{"n": 2, "mean": 0.5}')
    (bench / "none.json").write_text('{"n": 0, "seconds": 1, "completion_tokens": 1}')
    (bench / "other").mkdir(exist_ok=True)
    (bench / "other/manifest.json").write_text("{}")
    done = offapi("cost", *words, "--json", cwd=bench)
    assert (done.returncode, done.stdout) == (code, "")
    error = orjson.loads(done.stderr)
    assert message in error["message"]
    assert error["next"]
