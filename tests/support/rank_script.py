"""What each rank of a launch runs in tests: offapi's commands, one after the other.

rank_script.py COMMANDS STEP WHAT, where rank 1 does WHAT before optimizer step STEP of the last:
kill itself, or wait a little
"""

from __future__ import annotations

import os
import signal
import sys
import time

import orjson

from offapi import cli
from offapi.launch import find_launch
from offapi.ranks.member import Member
from offapi.ranks.messages import Command, OptimStep

LITTLE = 2.0  # seconds


def stop_at(step: int, what: str) -> None:
    """Have this rank kill itself, as the kernel does for lack of memory, or wait, between steps."""
    do, seen = Member.do, 0

    def watched(self: Member, command: Command) -> object:
        nonlocal seen
        seen += isinstance(command, OptimStep)
        if seen == step and isinstance(command, OptimStep):
            time.sleep(LITTLE) if what == "wait" else os.kill(os.getpid(), signal.SIGKILL)
        return do(self, command)

    Member.do = watched  # type: ignore[method-assign]


def main() -> None:
    """Run the commands; end with the first code that is not 0."""
    commands, step = orjson.loads(sys.argv[1]), int(sys.argv[2])
    launch = find_launch()
    assert launch is not None
    for i, words in enumerate(commands, start=1):
        if i == len(commands) and launch.rank == 1:
            stop_at(step, sys.argv[3])
        code = cli.run(words)
        if code:
            os._exit(code)
    os._exit(0)


if __name__ == "__main__":
    main()
