"""Processes that the terminal's Ctrl-C does not reach."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import multiprocessing as mp
import signal
from offapi.workers import spawn as spawned

def tell(pipe):
    pipe.send(signal.pthread_sigmask(signal.SIG_BLOCK, []))

if __name__ == "__main__":
    context = mp.get_context("spawn")
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=tell, args=(theirs,))
        spawned.start(process, signal.SIGINT)
        held = ours.recv()
        process.join()
        print(signal.SIGINT in held, signal.SIGTERM in held)
    print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


def test_the_first_process_blocks_the_signals_too(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True False", "True False", "set()"], done.stderr
