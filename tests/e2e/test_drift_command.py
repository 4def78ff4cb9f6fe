"""`offapi drift` on a growing log, day after day: what it prints, writes and refuses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from drift_rows import row
from recipe_folder import Done, apart, start, until

TASK = """
import offapi
from offapi import checks

def low(document, answer, context):
    print("a check may print")
    return checks.Verdict(float((answer.value or {}).get("total", 0) < 1000), "looked")

task = offapi.Task(
    name="totals",
    instructions="Read the total.",
    schema={"type": "object", "properties": {"total": {"type": "number"}}},
    checks={"json": (checks.is_json, 1.0), "low": (low, 1.0), "gold": (checks.matches_gold, 1.0)},
    match={"total": "number"},
)
"""


def drift(folder: Path, *more: str) -> Done:
    files = ("--task", "task.py", "--reference", "ref.jsonl", "--fresh", "served.jsonl")
    return apart("drift", *files, *more, cwd=folder)


def folder(path: Path) -> Path:
    (path / "task.py").write_text(TASK)
    (path / "ref.jsonl").write_text("".join(row(i, "r") for i in range(500)))
    return path


def test_day_after_day_until_it_says_retrain(tmp_path: Path) -> None:
    served, state = folder(tmp_path) / "served.jsonl", tmp_path / "drift.json"
    served.write_text("".join(row(i, "a") for i in range(200)))
    first = drift(tmp_path, "--state", "drift.json", "--json")
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert (result["verdict"], result["fresh_rows"], result["new_rows"], result["next"]) == (
        "fresh",
        200,
        200,
        [],
    )
    assert [one["name"] for one in result["watched"]][:3] == [
        "check json",
        "check low",
        "total missing",
    ]
    assert result["alarm"] == len(result["watched"]) / 0.05
    assert result["right"]["fresh"]["mean"] == 1.0

    again = json.loads(drift(tmp_path, "--state", "drift.json", "--json").stdout)
    assert (again["fresh_rows"], again["new_rows"], again["passed_over"]) == (
        200,
        0,
        {"counted before": 200},
    )
    assert again["watched"] == result["watched"]

    with served.open("a") as file:
        file.writelines(row(i, "b", bad=i % 3 == 0) for i in range(300))
    last = drift(tmp_path, "--state", "drift.json")
    assert (last.returncode, last.stdout) == (3, "")
    for words in (
        "300 new rows, 500 in all; skipped: 200 counted before.",
        "RETRAIN: the answers have got worse. check low fell from 100.0% to 80.0%;",
        "Rule: retrain if the evidence for a fall of a check reaches 180 (9 signals / 0.05)",
        "New labels come first",
        "check low: rows that drove it",
        "b0                              ",
        "Right in all fields, among rows with gold: reference 100.0 [99.2–100.0]%, fresh 100.0",
        f"--data {served} --teacher TEACHER --out retrain-",
        f"Next: offapi train retrain/distill.toml --set data={served} --set labels=retrain-",
    ):
        assert words in last.stderr, last.stderr
    assert last.stderr.index("RETRAIN: ") < last.stderr.index("300 new rows"), "the verdict first"
    as_json = drift(tmp_path, "--state", "drift.json", "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)["verdict"]) == (3, "retrain")
    assert state.stat().st_mode & 0o777 == 0o600


def test_a_refusal_leaves_the_state_alone(tmp_path: Path) -> None:
    served, state = folder(tmp_path) / "served.jsonl", tmp_path / "drift.json"
    served.write_text(row(1, "a"))
    assert drift(tmp_path, "--state", "drift.json").returncode == 0
    before = state.read_bytes()
    served.write_text(row(1, "a") + row(2, "a") + '{"id": "x"}\n')
    for more, code, words in (
        ([], 1, "served.jsonl, line 3, field 'document'"),
        (["--margin", "0.1"], 2, "made with a different margin"),
    ):
        ran = drift(tmp_path, "--state", "drift.json", "--json", *more)
        assert (ran.returncode, ran.stdout) == (code, "")
        assert words in json.loads(ran.stderr.splitlines()[-1])["message"]
        assert state.read_bytes() == before

    state.write_bytes(before[:-9])
    ran = drift(tmp_path, "--state", "drift.json")
    assert ran.returncode == 1
    assert "the state file is damaged" in ran.stderr
    for name, words in (
        ("ref.jsonl", "also reads that file"),
        ("no/x", "the folder does not exist"),
    ):
        ran = drift(tmp_path, "--state", name)
        assert (ran.returncode, words in ran.stderr) == (2, True), ran.stderr

    served.write_text(row(5, "r"))
    assert "the file has no fresh row (1 in the reference)" in drift(tmp_path).stderr
    (tmp_path / "ref.jsonl").write_text("")
    ran = drift(tmp_path)
    assert (ran.returncode, "the file has no rows" in ran.stderr) == (1, True)


def test_the_json_object_has_only_finite_numbers(tmp_path: Path) -> None:
    served = folder(tmp_path) / "served.jsonl"
    served.write_text(row(1, "a"))
    found: dict[str, Any] = json.loads(drift(tmp_path, "--json").stdout)
    assert found["watched"][0]["lately"] is None
    assert found["watched"][0]["highest_e"] == 1.0
    assert found["state"] is None


def test_a_second_call_at_once_is_refused(tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    waiting = (
        "import pathlib, time\n\ndef low(document, answer, context):\n"
        f"    while 'SLOW' in document and not pathlib.Path({str(go)!r}).exists():\n"
        f"        pathlib.Path({str(begun)!r}).touch()\n        time.sleep(0.02)\n"
    )
    folder(tmp_path)
    (tmp_path / "task.py").write_text(
        TASK.replace("def low(document, answer, context):\n", waiting)
    )
    served, state = tmp_path / "served.jsonl", tmp_path / "drift.json"
    served.write_text(row(1, "a"))
    assert drift(tmp_path, "--state", "drift.json").returncode == 0
    before = state.read_bytes()

    slow = tmp_path / "slow.jsonl"
    slow.write_text(row(2, "a").replace("Receipt", "SLOW receipt"))
    files = (
        "--task",
        "task.py",
        "--reference",
        "ref.jsonl",
        "--fresh",
        "slow.jsonl",
        "--state",
        "drift.json",
    )
    first = subprocess.Popen(start("drift", *files), cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        until(begun.exists)
        served.write_text(row(3, "a"))
        second = drift(tmp_path, "--state", "drift.json", "--json")
        assert (second.returncode, second.stdout) == (1, "")
        result = json.loads(second.stderr)
        assert result["code"] == "run"
        assert (
            result["message"]
            == f"--state drift.json: this state is being written by process {first.pid}."
        )
        assert state.read_bytes() == before
    finally:
        go.touch()
        first.wait(60)
    assert first.returncode == 0
    assert json.loads(drift(tmp_path, "--state", "drift.json", "--json").stdout)["fresh_rows"] == 3
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".drift.json.lock"]
