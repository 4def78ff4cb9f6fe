"""Plant single-line bugs one at a time, and see whether the tests named for each of them fail.

A mutant is a row of tests/mutants/*.toml: the file, its line, what the line becomes, and the tests
that must fail then. Each runs in a copy of the checkout, never in the checkout itself. Left out:
finding mutants; they are chosen by people, from the lines that matter.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

ROOT = Path(__file__).resolve().parents[1]
LISTS = ROOT / "tests" / "mutants"
MOST_SURVIVORS = 0.03  # of all mutants run
TIMEOUT = 300  # seconds; a mutant may make its tests run for ever, which counts as failing
LINKS = {"backends": "offapi/backends", "recipes": "offapi/recipes"}  # as pyproject.toml installs
Outcome = Literal["caught", "survived", "hung", "broken"]


@dataclass(frozen=True)
class Mutant:
    """One planted bug: `line` of `file` becomes `becomes`, and `tests` must fail."""

    file: str
    line: str  # without its indentation; it occurs once in the file
    becomes: str
    tests: tuple[str, ...]  # what pytest is given: files, folders or node ids

    def apply(self, source: str) -> str:
        """Return `source` with the bug; raise ValueError unless `line` occurs exactly once."""
        lines = source.split("\n")
        places = [at for at, text in enumerate(lines) if text.strip() == self.line.strip()]
        if len(places) != 1:
            raise ValueError(f"{self.file}: {len(places)} lines are {self.line.strip()!r}")
        old = lines[places[0]]
        indent = old[: len(old) - len(old.lstrip())]
        lines[places[0]] = indent + self.becomes.strip()
        return "\n".join(lines)


def read_mutants(folder: Path = LISTS) -> dict[str, tuple[Mutant, ...]]:
    """Return the mutants of each list, by the list's name."""
    lists: dict[str, tuple[Mutant, ...]] = {}
    for path in sorted(folder.glob("*.toml")):
        rows = tomllib.loads(path.read_text("utf-8"))["mutant"]
        lists[path.stem] = msgspec.convert(rows, tuple[Mutant, ...])
    return lists


@contextmanager
def checkout_copy() -> Iterator[Path]:
    """Yield a folder with the checkout's files, importable as the installed package is."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    with tempfile.TemporaryDirectory(prefix="offapi-mutants-") as name:
        copy = Path(name)
        for file in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / file).is_file():
                (copy / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, copy / file)
        for folder, link in LINKS.items():
            (copy / link).symlink_to(copy / folder, target_is_directory=True)
        yield copy


def run_tests(copy: Path, tests: Sequence[str]) -> tuple[int | None, str]:
    """Return pytest's exit status in `copy` (None: it took too long) and the end of its output."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    started = subprocess.Popen(
        command,
        cwd=copy,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = started.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        with suppress(ProcessLookupError):  # a bug may leave helper processes behind
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    return started.returncode, said[-2000:]


def try_mutant(copy: Path, mutant: Mutant) -> Outcome:
    """Plant `mutant` in `copy`, run its tests, take it out again."""
    path = copy / mutant.file
    source = path.read_text("utf-8")
    path.write_text(mutant.apply(source), "utf-8")
    try:
        status, _ = run_tests(copy, mutant.tests)
    finally:
        path.write_text(source, "utf-8")
    if status is None:
        return "hung"
    if status in (4, 5):  # pytest: wrong arguments, no tests
        return "broken"
    return "survived" if status == 0 else "caught"


def check_unplanted(copies: queue.Queue[Path], tests: Iterable[str], jobs: int) -> list[str]:
    """Return those of `tests` that do not pass without any bug: they would catch everything."""

    def passes(test: str) -> bool:
        copy = copies.get()
        try:
            status, end = run_tests(copy, [test])
        finally:
            copies.put(copy)
        if status != 0:
            print(f"without a bug, {test} ends with {status}:\n{end}", flush=True)
        return status == 0

    names = sorted(set(tests))
    with ThreadPoolExecutor(jobs) as pool:
        passed = list(pool.map(passes, names))
    return [name for name, good in zip(names, passed, strict=True) if not good]


def run_mutants(mutants: Sequence[Mutant], jobs: int) -> dict[Outcome, int]:
    """Run `mutants` on `jobs` copies, print what is not caught, return the counts."""
    counts: dict[Outcome, int] = {"caught": 0, "survived": 0, "hung": 0, "broken": 0}
    copies: queue.Queue[Path] = queue.Queue()

    def one(mutant: Mutant) -> tuple[Mutant, Outcome]:
        copy = copies.get()
        try:
            return mutant, try_mutant(copy, mutant)
        finally:
            copies.put(copy)

    with ExitStack() as stack:
        for _ in range(jobs):
            copies.put(stack.enter_context(checkout_copy()))
        failing = check_unplanted(copies, (test for each in mutants for test in each.tests), jobs)
        if failing:
            raise SystemExit(f"error: {len(failing)} of the named tests fail without any bug.")
        with ThreadPoolExecutor(jobs) as pool:
            for done, (mutant, outcome) in enumerate(pool.map(one, mutants), start=1):
                counts[outcome] += 1
                if outcome in ("survived", "broken"):
                    print(f"{outcome}: {mutant.file}: {mutant.line} -> {mutant.becomes}")
                if done % 10 == 0:
                    print(f"{done} of {len(mutants)} ...", file=sys.stderr, flush=True)
    return counts


def main() -> int:
    """Run what is asked for; the exit status is 1 where too many mutants survive."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="run the lists whose name contains this text")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    asked = parser.parse_args()
    chosen = [each for name, each in read_mutants().items() if asked.only in name]
    mutants = [mutant for each in chosen for mutant in each]
    if not mutants:
        raise SystemExit(f"error: no list of {LISTS} is called {asked.only!r}.")
    started = time.monotonic()
    counts = run_mutants(mutants, asked.jobs)
    shown = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    print(f"{len(mutants)} mutants: {shown}, in {(time.monotonic() - started) / 60:.0f} min.")
    bad = counts["survived"] + counts["broken"]
    return int(bad > MOST_SURVIVORS * len(mutants))


if __name__ == "__main__":
    sys.exit(main())
