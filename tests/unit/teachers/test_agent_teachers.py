"""Models label a task with tools: one behind an endpoint, over HTTP, and one in the store."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bigram_llama
import pytest
from fake_llm_server import Server, Turn
from recipe_folder import Done, environment, offapi, start, told, until

from offapi.data import traces
from offapi.data.documents import Document
from offapi.task import load_task
from offapi.teachers.budget import Budget
from offapi.teachers.client_episode import ClientEpisode
from offapi.teachers.teacher import Price

TASK = '''
import time
from pathlib import Path

import offapi
from offapi import checks

def double(number: int) -> int:
    """Return twice a number.

    Args:
        number: The number.
    """
    while number == 5 and not Path(HERE, "go").exists():
        time.sleep(0.01)
    return 2 * number

task = offapi.Task(
    name="doubles",
    instructions="Double the number.",
    schema={"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
    tools=(double,),
    checks={"from a tool": (checks.from_tools("total"), 1.0)},
    match={"total": "number"},
    max_turns=3,
    max_answer_tokens=20,
    tool_seconds=60,
    examples=(offapi.Example("two", {"total": 4}),),
)
'''
Scripts = Mapping[str, Sequence[Turn]]


def double(number: str, text: str | None = None) -> Turn:
    return Turn(text, (("0", "double", f'{{"number": {number}}}'),))


def answer(total: int) -> Turn:
    return Turn(json.dumps({"total": total}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text(TASK.replace("HERE", repr(str(tmp_path))))
    return tmp_path


def label(folder: Path, documents: Sequence[str], teacher: str, *more: str) -> Done:
    rows = [json.dumps({"id": each.split()[0], "document": each}) for each in documents]
    (folder / "docs.jsonl").write_text("\n".join(rows))
    words = ["label", f"--task={folder / 'task.py'}", f"--data={folder / 'docs.jsonl'}"]
    words += [] if "--max-cost=3" in more else ["--json"]
    return offapi(*words, f"--teacher={teacher}", f"--out={folder / 'out.jsonl'}", *more)


def failed(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "out.jsonl.failed").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def test_an_endpoint_calls_the_tools_and_its_mistakes_are_answered(folder: Path) -> None:
    scripts: Scripts = {
        "four": [double("4", "Let me see."), answer(8)],
        "bad": [double('"4'), double("6"), answer(12)],
        "both": [Turn(None, (*double("1").calls, *double("2").calls)), answer(4)],
        "endless": [double("1")] * 3,
        "cut": [Turn('{"to', cut=True)],
        "silent": [double("1"), Turn("")],
    }
    with Server(scripts) as server:
        done = label(folder, list(scripts), server.url, "--price-in=1", "--price-out=2")
        wire = [body for body, _ in server.wire]
    tally = told(done)
    assert tally["failed"] == {"turns": 1, "length": 1, "empty answer": 1}
    assert (tally["prompt_tokens"], tally["completion_tokens"]) == (13 * 9, 13 * 3)
    kept = {each.id: each for each in traces.read(folder / "out.jsonl")}
    assert set(kept) == {"four", "bad", "both"}
    task = load_task(folder / "task.py")
    assert [task.grade_trace(each).score for each in kept.values()] == [1.0] * 3
    four = kept["four"].messages
    assert four[2]["content"] == "Let me see."
    assert four[2]["tool_calls"][0]["id"] == four[3]["tool_call_id"] == "call00001"
    assert kept["bad"].source
    assert kept["bad"].source["tool_errors"] == 1
    assert kept["bad"].messages[3]["content"].startswith("Error: the call could not be read: its")
    assert [m["tool_call_id"] for m in kept["both"].messages[3:5]] == ["call00001", "call00002"]
    assert failed(folder)["endless"]["source"]["reason"] == "turns: more than 3"
    assert all(body["tools"] == list(task.tool_schemas) for body in wire)
    (again,) = [b["messages"] for b in wire if len(b["messages"]) == 4 and b["messages"][1]["content"] == "bad"]  # fmt: skip
    assert [m["role"] for m in again] == ["system", "user", "assistant", "user"]
    assert told(label(folder, list(scripts), server.url))["asked"] == 0


def test_the_budget_stops_an_episode_which_is_asked_again(folder: Path) -> None:
    scripts: Scripts = {"four": [double("4"), double("4"), answer(8)]}
    asked = ClientEpisode(load_task(folder / "task.py"), Document("four", "four")).request()
    first = Budget(Price(1000, 1000), None, max_tokens=20).bound(asked)
    prices = ("--price-in=1000", "--price-out=1000")
    with Server(scripts) as server:
        for spent in ("$0.0120 was spent.", "$0.0120 for the labels file in all"):
            stopped = label(folder, ["four"], server.url, *prices, f"--max-cost={first!r}")
            assert (stopped.returncode, len(server.wire)) == (3, 1)
            assert spent in stopped.stderr
            assert failed(folder)["four"]["source"]["reason"] == "stopped"
        done = label(folder, ["four"], server.url, *prices, "--max-cost=3")
    assert re.search(r"prompt tokens, for one turn each: about \$0.\d+; up to \$0", done.stderr)
    assert "1 document has a trace." in done.stderr


def test_a_killed_command_asks_for_the_rest_alone(folder: Path) -> None:
    scripts: Scripts = {"four": [double("4"), answer(8)], "five": [double("5")] * 2 + [answer(10)]}
    rows = [json.dumps({"id": each, "document": each}) for each in scripts]
    (folder / "docs.jsonl").write_text("\n".join(rows))
    out = folder / "out.jsonl"
    with Server(scripts) as server:
        words = ["label", f"--task={folder / 'task.py'}", f"--data={folder / 'docs.jsonl'}"]
        words += [f"--out={out}", f"--teacher={server.url}", "--concurrency=1", "--json"]
        process = subprocess.Popen(start(*words), env=environment(), stderr=subprocess.DEVNULL)
        until(lambda: len(server.wire) == 3 and out.read_bytes().endswith(b"\n"), seconds=30)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = out.read_bytes()
        (folder / "go").touch()
        assert told(offapi(*words))["asked"] == 1
    assert out.read_bytes().startswith(before)
    assert [each.answer for each in traces.read(out)] == ['{"total": 8}', '{"total": 10}']


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_a_model_in_the_store_calls_the_tools(folder: Path, backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    call = '<tool_call>{"name": "double", "arguments": {"number": 4}}</tool_call>'
    answers = {"x": [call], ">": ['{"total": ', "8}"], "y": ["∞"]}
    model = bigram_llama.write(folder / "parrot", answers, context=1500)
    documents = ["a x", "b y", "c x", "long " + 1000 * "1x"]
    tally = told(label(folder, documents, f"local:{model}", f"--backend={backend}"))
    assert (tally["ok"], tally["failed"]) == (2, {"length": 1, "tokens": 1})
    a, c = sorted(traces.read(folder / "out.jsonl"), key=lambda each: each.id)
    assert load_task(folder / "task.py").grade_trace(a).score == 1.0
    assert [m["role"] for m in c.messages[2:]] == ["assistant", "tool", "assistant"]
    assert a.source
    assert a.source["usage"]["completion_tokens"] == 5
    assert told(label(folder, documents, f"local:{model}", f"--backend={backend}"))["asked"] == 0


@pytest.mark.parametrize(
    ("teacher", "option", "why"),
    [
        ("http://127.0.0.1:9/v1", "--shots=1", "--shots is for single answers"),
        ("local:demo", "--constrain=schema", "--constrain is for single answers"),
        ("http://127.0.0.1:9/v1", "--template=a=1", "--template does not apply to an endpoint"),
        ("local:demo", "--max-cost=1", "--max-cost does not apply to a local teacher"),
        ("script:s.py", "--backend=torch", "--backend does not apply to a script"),
        ("recorded", "--limit=1", "recorded labels are single answers"),
        ("https://example.com/v1", "--limit=1", "--teacher-terms-checked"),
    ],
)
def test_options_that_do_nothing_are_refused(
    folder: Path, teacher: str, option: str, why: str
) -> None:
    done = label(folder, ["four"], teacher, option)
    assert done.returncode == 2
    assert why in done.stderr
    assert not (folder / "out.jsonl").exists()
