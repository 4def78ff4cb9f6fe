"""A scripted teacher labels a task with tools: traces with true results, kept and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from offapi.cli import cli
from offapi.data import traces
from offapi.task import load_task

TASK = '''
import offapi
from offapi import checks

def double(number: int) -> int:
    """Return twice a number.

    Args:
        number: The number.
    """
    return 2 * number

task = offapi.Task(
    name="doubles",
    instructions="Double the number.",
    schema={"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
    tools=(double,),
    checks={"from a tool": (checks.from_tools("total"), 1.0)},
    match={"total": "number"},
    max_turns=2,
)
'''
SCRIPT = """
import json
from offapi.tools import ToolCall, Turn

def take_turn(document, messages):
    if document.text == "odd":
        return None
    if document.text == "endless" or messages[-1]["role"] == "user":
        return Turn("", (ToolCall("call_1", "double", {"number": int(document.gold["total"]) // 2}),))
    return Turn(json.dumps({"total": int(messages[-1]["content"])}))
"""
ROWS = [("a", "four", 4), ("b", "odd", 3), ("c", "endless", 8), ("d", "ten", 10)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "script.py").write_text(SCRIPT)
    rows = [{"id": i, "document": text, "gold": {"total": n}} for i, text, n in ROWS]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def label(folder: Path, *more: str) -> dict[str, Any]:
    words = ["label", "--json", f"--task={folder / 'task.py'}", f"--data={folder / 'docs.jsonl'}"]
    words += [f"--teacher=script:{folder / 'script.py'}", f"--out={folder / 'out.jsonl'}", *more]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_traces_have_true_results_and_failures_their_reason(folder: Path) -> None:
    told = label(folder)
    assert (told["ok"], told["failed"]) == (
        2,
        {"given up by the script": 1, "more than 2 turns": 1},
    )
    kept = {each.id: each for each in traces.read(folder / "out.jsonl")}
    assert set(kept) == {"a", "d"}
    assert [m["content"] for m in kept["a"].messages if m["role"] == "tool"] == ["4"]
    task = load_task(folder / "task.py")
    assert task.grade_trace(kept["a"]).score == 1.0
    assert kept["a"].tools == tuple(task.tool_schemas)


def test_a_second_call_asks_for_the_rest_alone(folder: Path) -> None:
    assert label(folder, "--limit=1")["asked"] == 1
    assert label(folder)["asked"] == 3
    before = (folder / "out.jsonl").read_bytes()
    again = label(folder)
    assert (again["asked"], again["ok"], sum(again["failed"].values())) == (0, 2, 2)
    assert (folder / "out.jsonl").read_bytes() == before
    assert label(folder, "--retry-failed")["asked"] == 2


def test_a_line_that_a_crash_cut_is_asked_again(folder: Path) -> None:
    label(folder)
    whole = (folder / "out.jsonl").read_bytes()
    (folder / "out.jsonl").write_bytes(whole[:-20])
    assert label(folder)["asked"] == 1
    assert {each.id for each in traces.read(folder / "out.jsonl")} == {"a", "d"}


def test_a_failure_that_a_crash_cut_is_asked_again(folder: Path) -> None:
    label(folder)
    failed = folder / "out.jsonl.failed"
    failed.write_bytes(failed.read_bytes()[:-20])
    assert label(folder)["asked"] == 1
    assert label(folder)["asked"] == 0  # the file is whole


@pytest.mark.parametrize("content", [b"notes of mine", b'{"id": 1}\n{"id":"torn', b"a\nb"])
def test_another_file_stays_as_it_is(folder: Path, content: bytes) -> None:
    (folder / "out.jsonl").write_bytes(content)
    words = ["label", f"--task={folder / 'task.py'}", f"--data={folder / 'docs.jsonl'}"]
    words += [f"--teacher=script:{folder / 'script.py'}", f"--out={folder / 'out.jsonl'}"]
    done = CliRunner().invoke(cli, words)
    assert "not a trace" in str(done.exception)
    assert (folder / "out.jsonl").read_bytes() == content


def test_a_script_that_raises_is_an_error_at_the_document(folder: Path) -> None:
    (folder / "script.py").write_text("def take_turn(document, messages):\n    return 1 / 0\n")
    words = ["label", f"--task={folder / 'task.py'}", f"--data={folder / 'docs.jsonl'}"]
    words += [f"--teacher=script:{folder / 'script.py'}", f"--out={folder / 'out.jsonl'}"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code != 0
    assert "division by zero" in str(done.exception)
    assert not (folder / "out.jsonl").exists()
