"""What each rank of a launch runs in tests: offapi's commands, one after the other.

rank_script.py COMMANDS STEP, where rank 1 kills itself before optimizer step STEP of the last
"""

from __future__ import annotations

import os
import signal
import sys

import orjson

from offapi import cli
from offapi.launch import find_launch
from offapi.ranks.member import Member
from offapi.ranks.messages import Command, OptimStep


def die_at(step: int) -> None:
    """Have this rank kill itself, as the kernel does for lack of memory, between two steps."""
    do, seen = Member.do, 0

    def watched(self: Member, command: Command) -> object:
        nonlocal seen
        seen += isinstance(command, OptimStep)
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return do(self, command)

    Member.do = watched  # type: ignore[method-assign]


def main() -> None:
    """Run the commands; end with the first code that is not 0."""
    commands, step = orjson.loads(sys.argv[1]), int(sys.argv[2])
    launch = find_launch()
    assert launch is not None
    for i, words in enumerate(commands, start=1):
        if i == len(commands) and launch.rank == 1:
            die_at(step)
        code = cli.run(words)
        if code:
            os._exit(code)
    os._exit(0)


if __name__ == "__main__":
    main()
