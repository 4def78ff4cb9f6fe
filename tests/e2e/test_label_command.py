"""`offapi label` with local and recorded teachers, and what it refuses before asking."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bigram_llama
import pytest
from fake_llm_server import Server, Turn
from recipe_folder import Done, apart

from offapi.models import store

TASK = """
import offapi
from offapi import checks
task = offapi.Task(
    name="totals",
    instructions="Read the total.",
    schema={"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
    checks={"json": (checks.is_json, 1.0)},
    match={"total": "number"},
    examples=(offapi.Example("A receipt: 7", {"total": 7}),),
    max_answer_tokens=12,
)
"""
ROWS = [
    {"id": "one", "document": "Sum: 1", "recorded_label": {"total": 1.5}},
    {"id": "two", "document": "Sum: 2"},
    {"id": "for ever", "document": "Sum: 3"},
    {"id": "too long", "document": "Sum: " + "1" * 3000},
]


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """Return the command with --task, --data and --out, to be followed by a teacher."""
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    out = tmp_path / "labels.jsonl"
    return [
        "label",
        "--task",
        tmp_path / "task.py",
        "--data",
        tmp_path / "docs.jsonl",
        "--out",
        out,
    ]


def rows(files: list[object]) -> dict[str, dict[str, Any]]:
    """Return the rows of the labels file by document."""
    lines = Path(str(files[-1])).read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def error(ran: Done, code: int) -> dict[str, str]:
    """Return the error object of a --json run that failed with `code` and an empty stdout."""
    assert (ran.returncode, ran.stdout) == (code, ""), ran.stderr
    shown: dict[str, str] = json.loads(ran.stderr)
    assert set(shown) == {"code", "message", "next"}
    return shown


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_a_local_model_labels_and_is_not_asked_twice(
    files: list[object], tmp_path: Path, backend: str
) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    folder = bigram_llama.write(
        tmp_path / "parrot", {"1": ['{"total": ', "1.0}"], "2": ['{"total":', "2}"], "3": ["∞"]}
    )
    files += ["--teacher", f"local:{folder}", "--backend", backend]
    ran = apart(*files)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "local:parrot will label 4 of 4 documents." in ran.stderr
    assert "2 of 4 documents labelled" in ran.stderr
    assert "did not end within the task's max_answer_tokens = 12. Raise it" in ran.stderr

    labels = rows([*files[:7]])
    assert {
        id: (row["output"], row.get("reason", "").split(":")[0]) for id, row in labels.items()
    } == {
        "one": ('{"total": 1.0}', ""),
        "two": ('{"total":2}', ""),
        "for ever": ("∞" * 12, "truncated"),
        "too long": ("", "too long for the model"),
    }
    assert labels["one"]["usage"]["completion_tokens"] == 3
    assert labels["one"]["teacher"] == "local:parrot"

    again = json.loads(apart(*files, "--json").stdout)
    assert (again["asked"], again["ok"], again["left"], again["cost_usd"]) == (0, 2, 0, 0.0)
    assert again["failed"] == {"truncated": 1, "too long for the model": 1}


def test_the_demo_model_reads_with_the_tasks_worked_examples(
    files: list[object], tmp_path: Path, demo_model: store.Model
) -> None:
    examples = """(
        offapi.Example("Shop A\\nCoffee 3.00\\nTOTAL 12.40", {"total": 12.4}),
        offapi.Example("Shop B\\nTea 1.00\\nTOTAL 7.15", {"total": 7.15}),
        offapi.Example("Shop C\\nCake 4.50\\nTOTAL 31.00", {"total": 31.0}),
    )"""
    (tmp_path / "task.py").write_text(
        TASK.replace('(offapi.Example("A receipt: 7", {"total": 7}),)', examples)
    )
    row = {"id": "x", "document": "Shop D\nBread 2.20\nTOTAL 18.65"}
    (tmp_path / "docs.jsonl").write_text(json.dumps(row))
    ran = apart(*files, "--teacher", f"local:{demo_model.name}", "--json")
    assert json.loads(ran.stdout)["ok"] == 1, ran.stderr
    assert json.loads(rows(files)["x"]["output"]) == {"total": 18.65}


def test_recorded_labels_need_no_model_and_the_limit_holds(files: list[object]) -> None:
    ran = apart(*files, "--teacher", "recorded", "--limit", 2, "--json")
    assert json.loads(ran.stdout) == {
        "labels": str(files[-1]),
        "teacher": "recorded",
        "documents": 2,
        "ok": 1,
        "failed": {"no recorded_label": 1},
        "left": 0,
        "asked": 2,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "seconds": pytest.approx(0, abs=5),
        "cost_usd": 0.0,
    }
    assert ran.stderr == ""
    assert json.loads(rows(files)["one"]["output"]) == {"total": 1.5}


def test_nothing_labelled_is_a_failure(files: list[object], tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text('{"id": "a", "document": "x"}\n')
    for _ in range(2):  # the second time nothing is asked, and still nothing is labelled
        shown = error(apart(*files, "--teacher", "recorded", "--json"), 1)
        assert "no document was labelled: no recorded_label" in shown["message"]


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--teacher", "https://api.example.com/v1"], 2, "--teacher-terms-checked"),
        (["--teacher", "gpt-4"], 2, "local:NAME"),
        (["--teacher", "recorded", "--max-cost", "1"], 2, "--max-cost needs an endpoint"),
        (["--teacher", "http://127.0.0.1:9/v1", "--max-cost", "1"], 2, "--price-in"),
        (["--teacher", "http://127.0.0.1:9/v1", "--price-in", "1"], 2, "--price-out"),
        (["--teacher", "http://127.0.0.1:9/v1", "--api-key-env", "NO_SUCH_KEY"], 2, "NO_SUCH_KEY"),
        (["--teacher", "http://u:p@127.0.0.1:9/v1"], 2, "--api-key-env"),
        (["--teacher", "recorded", "--shots", "-1"], 2, "--shots"),
        (["--teacher", "http://127.0.0.1:9/v1", "--shots", "5"], 2, "fewer shots"),
        (["--teacher", "local:no-such-model"], 2, "no-such-model"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    files: list[object], more: list[str], code: int, says: str
) -> None:
    shown = error(apart(*files, *more, "--json"), code)
    assert says in shown["message"] + shown["next"]
    assert not Path(str(files[6])).exists()


def test_faulty_files_are_named(files: list[object], tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text(
        '{"id": "a", "document": "x"}\n{"id": "a", "document": "y"}\n'
    )
    shown = error(apart(*files, "--teacher", "recorded", "--json"), 1)
    assert "docs.jsonl, line 2" in shown["message"]
    (tmp_path / "labels.jsonl").write_text('{"id": "a", "document": "x"}\n')
    (tmp_path / "docs.jsonl").write_text('{"id": "a", "document": "x"}\n')
    shown = error(apart(*files, "--teacher", "recorded", "--json"), 1)
    assert "labels.jsonl, line 1" in shown["message"]
    assert (tmp_path / "labels.jsonl").read_text() == '{"id": "a", "document": "x"}\n'


def test_the_cost_limit_counts_earlier_runs(files: list[object]) -> None:
    """An earlier run into the same file spent 2 dollars, so nothing may be asked at a cap of 2."""
    line = {
        "id": "gone",
        "output": "x",
        "status": "ok",
        "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 100_000},
        "seconds": 1.0,
        "teacher": "http://127.0.0.1:9/v1#m",
        "prompt_sha256": "0",
    }
    Path(str(files[-1])).write_text(json.dumps(line) + "\n")
    prices = ["--price-in", 1, "--price-out", 10, "--max-cost", 2]
    shown = error(
        apart(*files, "--teacher", "http://127.0.0.1:9/v1/", "--model", "m", *prices, "--json"), 3
    )
    assert shown["code"] == "gate"
    assert (
        "$0.0000 was spent in this call and $2.0000 for the labels file in all" in shown["message"]
    )
    assert "4 of 4 documents are left" in shown["message"]


def test_help_shows_an_example() -> None:
    ran = apart("label", "--help")
    assert ran.returncode == 0
    assert "--teacher local:demo --out" in ran.stdout


def test_an_endpoint_gets_the_schema_and_the_form_of_its_answers_is_told(
    files: list[object],
) -> None:
    fenced = Turn('```json\n{"total": 1.5}\n```')
    with Server({"A receipt: 7": [fenced] * 3 + [Turn("I cannot.")]}) as server:
        ran = apart(*files, "--teacher", server.url)
        assert ran.returncode == 0, ran.stderr
        formats = [body["response_format"] for body, _ in server.wire]
    assert [each["json_schema"]["schema"]["required"] for each in formats] == [["total"]] * 4
    said = " ".join(ran.stderr.split())
    assert "3 of 4 answers stood in a code fence, which was set aside." in said
    assert "1 of 4 answers is not one JSON object: text without JSON (1)." in said
