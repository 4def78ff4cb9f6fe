"""A disk that fills up while `offapi train` begins: a run that came to nothing does not stay, one with steps does."""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager
from pathlib import Path

import faults
import pytest
import tiny
import workshop

from offapi import cli

RECIPE = """
recipe = "sft"
task = "task.py"
data = "train.jsonl"
model = "model"
out = "runs"
epochs = 1.0
batch_size = 2
[lora]
rank = 4
"""


def full_from(n: int) -> AbstractContextManager[None]:
    """From the n-th write on, none succeeds."""
    left = n

    def tick(called: str, *_: object) -> None:
        nonlocal left
        left -= called == "write"
        if called == "write" and left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return faults.watching(tick)


def test_a_run_that_came_to_nothing_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.write_chat(tmp_path / "model")
    (tmp_path / "task.py").write_text(workshop.TASK)
    (tmp_path / "sft.toml").write_text(RECIPE)
    rows = [{"id": f"d{i}", "document": f"from {i}", "gold": {"shop": f"{i}"}} for i in range(4)]
    workshop.write_jsonl(tmp_path / "train.jsonl", rows)
    run = tmp_path / "runs" / "sft"
    for n in (1, 2, 3):  # the manifest, the attempt in it, the first step
        with full_from(n):
            assert cli.run(["train", "sft.toml", "--backend=torch"]) == 1
        err = capsys.readouterr().err
        assert "No space left on device" in err
        assert "Free some space" in err
        assert not list((tmp_path / "runs").iterdir()), n
    with full_from(4):
        assert cli.run(["train", "sft.toml", "--backend=torch"]) == 1
    assert (run / "metrics.jsonl").read_bytes().count(b"\n") == 1
    assert cli.run(["train", "sft.toml", "--backend=torch", "--resume"]) == 0
    assert (run / "adapter").is_dir()
