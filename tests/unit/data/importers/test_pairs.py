"""The file that joins requests and results: for its owner alone, and gone when the import ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

from offapi.data.importers.pairs import Half, Others, noted_halves

HALVES = [
    Half("a", {"custom_id": "a"}, {"body": "from Jane Doe"}),
    Half("a", {"custom_id": "a", "response": 1}, None),
]
KILLED = """
import sys, time
from pathlib import Path
from offapi.data.importers.pairs import Half, noted_halves

def halves():
    yield Half("a", {}, {"body": "from Jane Doe"})
    if sys.argv[2] == "noting":
        print("ready", flush=True)
        time.sleep(60)

with noted_halves(Path(sys.argv[1]), halves()):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_only_its_owner_can_read_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with noted_halves(tmp_path / "out.part.join", HALVES) as path:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            whole = Others(path).whole(HALVES[1])
            assert whole is not None
            assert whole["request"] == HALVES[0].request
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == []


def test_it_is_gone_after_a_kill_while_it_is_written_and_while_it_is_read(tmp_path: Path) -> None:
    for phase in ("noting", "reading"):
        path = tmp_path / f"{phase}.part.join"
        arguments = [sys.executable, "-c", KILLED, str(path), phase]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as importing:
            assert importing.stdout is not None
            assert importing.stdout.readline() == "ready\n"
            assert path.exists()
            importing.send_signal(signal.SIGKILL)
        until = time.monotonic() + 20
        while path.exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert not path.exists()
