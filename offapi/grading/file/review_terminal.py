"""Ask a person in the terminal whether graded answers are right, one key per answer.

Grades are not shown: they would influence the person.
"""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from offapi.data.traces import Trace
from offapi.errors import ConfigError
from offapi.grading.file.extremes import answer
from offapi.grading.file.reviews import Reviews
from offapi.grading.file.row_reader import Lines
from offapi.grading.table import Table
from offapi.progress import Progress
from offapi.text.display import plural, terminal_safe

LINES = 40  # of a document before it is cut
KEYS = "[y] right  [n] wrong  [s] skip  [m] whole document  [q] stop"


def require_terminal() -> None:
    """Raise ConfigError where there is no terminal to ask in."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        step = "Run it in a terminal, or give gold answers: in the rows, or with --gold FILE."
        what = "--review asks a person and needs a terminal, but this is not a terminal."
        raise ConfigError(what, next_step=step)


def ask(
    progress: Progress, rows: Sequence[int], table: Table, lines: Lines, reviews: Reviews
) -> Reviews:
    """Show each row and store the answer at once; `q` ends it and leaves the rest for later."""
    progress.say(f"Is every field of the answer right? {KEYS}. Reviews are in {reviews.path}.")
    with _keys():
        for place, row in enumerate(rows, start=1):
            key = _ask_row(progress, f"{place} of {len(rows)}", lines.trace(row))
            if key == "q":
                break
            content = int(table["content"][row])
            reviews = reviews.add(lines.trace(row).id, content, {"y": True, "n": False}.get(key))
    return reviews


def _ask_row(progress: Progress, place: str, trace: Trace) -> str:
    """Return the key that was pressed for a row."""
    most = LINES
    while True:
        _show(progress, f"{place}: {trace.id}", trace, most)
        if (key := _key()) != "m":
            return key
        most = sys.maxsize


def _show(progress: Progress, title: str, trace: Trace, most: int) -> None:
    """Show a row with at most `most` lines of its document."""
    document = terminal_safe(trace.document).splitlines()
    progress.say(f"\n--- {terminal_safe(title)} " + "-" * 40)
    progress.say("\n".join(document[:most]))
    if len(document) > most:
        progress.say(f"... ({plural(len(document) - most, 'more line')})")
    progress.say(f"--- answer:\n{answer(trace)}")


def _key() -> str:
    """Return the next valid key; raise KeyboardInterrupt where the terminal is closed."""
    while True:
        _write(f"{KEYS} ")
        pressed = os.read(sys.stdin.fileno(), 1).decode("ascii", "replace").lower()
        if pressed in ("", "\x04"):
            raise KeyboardInterrupt
        _write(f"{pressed if pressed.isprintable() else ''}\n")
        if pressed in ("y", "n", "s", "m", "q"):
            return pressed


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


@contextmanager
def _keys() -> Iterator[None]:
    """Read keys as they are pressed, including those pressed before they are asked for."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
