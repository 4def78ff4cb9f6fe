"""Measure CPU time of `offapi --help` against a bare `import click, orjson`, arms interleaved.

Exits with 1 if the ratio is above --most.

Usage: python scripts/bench/help.py [--repeats 15] [--most 3.0]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

ARMS = {
    "import click, orjson": [sys.executable, "-c", "import click, orjson"],
    "offapi --help": [str(Path(sys.executable).with_name("offapi")), "--help"],
    "import offapi": [sys.executable, "-c", "import offapi"],
}


def cpu_seconds(command: list[str]) -> float:
    """Return user and system seconds of one run of `command`."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return (
        after.children_user - before.children_user + after.children_system - before.children_system
    )


def main() -> int:
    """Print each arm's median time, and its median ratio to the first arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15, help="timed runs of each arm")
    parser.add_argument(
        "--most", type=float, default=3.0, help="the largest ratio of `offapi --help` that passes"
    )
    options = parser.parse_args()
    rounds = [
        {name: cpu_seconds(command) for name, command in ARMS.items()}
        for _ in range(options.repeats + 1)
    ]
    rounds = rounds[1:]  # the first one fills the caches
    ratios = {}
    for name in ARMS:
        times = [seconds[name] for seconds in rounds]
        pairs = [seconds[name] / seconds["import click, orjson"] for seconds in rounds]
        ratios[name] = statistics.median(pairs)
        spread = f"{min(pairs):.2f} to {max(pairs):.2f}"
        print(
            f"{name:22} {1000 * statistics.median(times):6.1f} ms  ratio {ratios[name]:.2f}"
            f" ({spread})"
        )
    return int(ratios["offapi --help"] > options.most)


if __name__ == "__main__":
    sys.exit(main())
