"""What a plan says of memory and tokens is what a run takes, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import plan_script
import pytest

CLOSE = 0.2


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says what a process's memory was")
@pytest.mark.parametrize("mode", ["kept", "recomputed"])
def test_a_plan_is_within_a_fifth_of_what_training_takes(
    backend_name: str, mode: str, tmp_path: Path
) -> None:
    words = [sys.executable, plan_script.__file__, backend_name, mode, str(tmp_path)]
    tests = ":".join(path for path in sys.path if path)
    settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": tests}
    done = subprocess.run(words, capture_output=True, env={**os.environ, **settings}, check=False)
    assert done.returncode == 0, done.stderr.decode()
    phases = orjson.loads(done.stdout)
    assert set(phases) == {"training"} | ({"reinforcement"} if mode == "kept" else set())
    for name, phase in phases.items():
        assert phase["planned_tokens"] == phase["tokens"], name
        assert phase["recomputed"] is (mode == "recomputed")
        assert phase["planned"] == pytest.approx(phase["peak"], rel=CLOSE), name
