"""Asks a person in the terminal whether graded answers are right, a key each.

Grades are not shown: they would lead.
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
from offapi.text.display import terminal_safe

LINES = 40  # of a document before it is cut
KEYS = "[y] right  [n] wrong  [s] skip  [m] whole document  [q] stop"


def require_terminal() -> None:
    """ConfigError where nobody could answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        step = "Run it in a terminal, or give gold answers: in the rows, or with --gold FILE."
        raise ConfigError("--review asks a person, and this is no terminal.", next_step=step)


def ask(
    said: Progress, rows: Sequence[int], table: Table, lines: Lines, reviews: Reviews
) -> Reviews:
    """Show each row and remember the answer at once;
    `q` ends it, and the rest is asked next time.
    """
    said.say(f"Is every field of the answer right? {KEYS}. Answers are kept in {reviews.path}.")
    with _keys():
        for place, row in enumerate(rows, start=1):
            key = _judged(said, f"{place} of {len(rows)}", lines.trace(row))
            if key == "q":
                break
            content = int(table["content"][row])
            reviews = reviews.add(lines.trace(row).id, content, {"y": True, "n": False}.get(key))
    return reviews


def _judged(said: Progress, place: str, trace: Trace) -> str:
    """The key that was pressed for a row."""
    most = LINES
    while True:
        _show(said, f"{place}: {trace.id}", trace, most)
        if (key := _key()) != "m":
            return key
        most = sys.maxsize


def _show(said: Progress, title: str, trace: Trace, most: int) -> None:
    """A row, with at most so many lines of its document."""
    document = terminal_safe(trace.document).splitlines()
    said.say(f"\n--- {terminal_safe(title)} " + "-" * 40)
    said.say("\n".join(document[:most]))
    if len(document) > most:
        said.say(f"... ({len(document) - most:,} more lines)")
    said.say(f"--- answer:\n{answer(trace)}")


def _key() -> str:
    """The next key that means something; KeyboardInterrupt where the terminal is closed."""
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
    """Keys are read as they are pressed, also those pressed before they are asked for."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
