"""Connections of helper processes and teachers are reported: in manifests, in text, in JSON."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import orjson
import pytest
from fake_llm_server import Server, Turn
from recipe_folder import write_jsonl

from offapi import cli
from offapi.errors import ConfigError
from offapi.network import guard
from offapi.rl.reward_pool import Asked, Rewards
from offapi.training.run import Run

OUTSIDE = "192.0.2.1"  # TEST-NET-1 (RFC 5737): nobody's
TASK = f"""
import socket, subprocess, time
from contextlib import suppress
import offapi
from offapi.checks import Verdict

def connects(document, answer, context):
    with offapi.network.guard.allow("{OUTSIDE}", 8000), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        with suppress(OSError):
            udp.connect(("{OUTSIDE}", 8000))  # sends nothing
        with suppress(OSError):
            udp.connect(("{OUTSIDE}", 8001))
    subprocess.run(["true", document])
    while "hang" in document:
        time.sleep(1)
    return Verdict(1.0, "")

task = offapi.Task(
    name="t",
    instructions="Read.",
    schema={{"type": "object", "properties": {{"a": {{"type": "string"}}}}}},
    match={{"a": "text"}},
    checks={{"connects": (connects, 1.0)}},
)
"""


@pytest.fixture(autouse=True)
def counted_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the attempts of other tests."""
    monkeypatch.setattr(guard, "_opened", Counter())
    monkeypatch.setattr(guard, "_refused", Counter())
    monkeypatch.setattr(guard, "_started", Counter())


def task_file(folder: Path) -> Path:
    (folder / "task.py").write_text(TASK)
    return folder / "task.py"


def opened(port: int = 8000, host: str = OUTSIDE, connections: int = 1) -> dict[str, object]:
    return {"host": host, "port": port, "connections": connections}


def test_a_manifest_lists_connections_of_ended_rewards(
    tmp_path: Path,
) -> None:
    run = Run.create(tmp_path, "r", {})
    asked = [Asked("a", "fine", "{}"), Asked("b", "fine", "{}"), Asked("c", "hang", "{}")]
    too_slow = pytest.raises(ConfigError, match=r"took more than 0\.4 s")
    with run.lock(), Rewards(task_file(tmp_path), 2, 0.4, tmp_path / "kept") as rewards:
        rewards.submit(asked[:2]).result()
        with too_slow:
            rewards.submit(asked[2:]).result()
    network = run.manifest["attempts"][-1]["network"]
    assert network["opened"] == [opened(connections=3)]
    (refused,) = network["refused"]
    assert (refused["target"], refused["count"]) == (f"{OUTSIDE}:8001", 3)
    assert "task.py" in refused["caller"]
    (started,) = network["started"]
    assert (started["program"], started["count"], started["expected"]) == ("true", 3, False)
    assert "task.py" in started["caller"]


def test_grade_reports_the_hosts_of_its_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = [{"id": f"t{i}", "document": f"d{i}", "recorded_label": {"a": "x"}} for i in range(3)]
    write_jsonl(tmp_path / "traces.jsonl", traces)
    words = ["grade", f"--task={task_file(tmp_path)}", f"--traces={tmp_path}/traces.jsonl"]
    assert cli.run([*words, f"--out={tmp_path}/one.jsonl", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["opened"] == [opened(connections=3)]
    assert cli.run([*words, f"--out={tmp_path}/two.jsonl"]) == 0
    assert f"Network: 3 connections to {OUTSIDE}:8000" in capsys.readouterr().err


def test_label_reports_only_the_host_of_its_endpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(
        tmp_path / "d.jsonl", [{"id": "1", "document": "one", "recorded_label": {"a": "x"}}]
    )
    words = ["label", f"--task={task_file(tmp_path)}", f"--data={tmp_path}/d.jsonl", "--json"]
    with Server({"one": [Turn('{"a": "x"}')]}) as server:
        assert cli.run([*words, f"--teacher={server.url}", f"--out={tmp_path}/o.jsonl"]) == 0
    result = orjson.loads(capsys.readouterr().out)
    assert result["opened"] == [opened(server.server_port, "127.0.0.1")]
    assert cli.run([*words, "--teacher=recorded", f"--out={tmp_path}/p.jsonl"]) == 0
    assert "opened" not in orjson.loads(capsys.readouterr().out)
