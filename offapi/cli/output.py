"""What a command prints: one JSON object on stdout with --json, everything for people on stderr.

rich is imported only for a terminal or a table, so that `--help` stays light. With --json
and no terminal, stderr holds at most one error object, and what a task file or a library prints
goes to stderr. All text for people is made safe here, in `say`, `table`, `progress` and
`show_error`; a run keeps it (`Transcript`).
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import click
import orjson

from offapi.cli.transcript import Transcript, error_lines
from offapi.errors import OffapiError
from offapi.network import guard
from offapi.progress import Advance, TimeLeft
from offapi.text.display import duration, plural, terminal_safe

SECONDS_BETWEEN_LINES = 10.0  # progress without a terminal
STDOUT, STDERR = 1, 2  # descriptors


@dataclass(frozen=True)
class Output:
    """What a command writes to: stdout for programs, stderr for people.

    `json`: a program reads stdout; `plain`: no colour, no redrawing.
    """

    json: bool = False
    plain: bool = False
    _before: Counter[tuple[str, int]] = field(
        default_factory=lambda: _connections(), repr=False, compare=False
    )
    _stdout: TextIO = field(default_factory=lambda: sys.stdout, repr=False, compare=False)
    _transcript: Transcript = field(default_factory=Transcript, repr=False, compare=False)

    @property
    def live(self) -> bool:
        """Whether stderr is a terminal that may be redrawn."""
        return sys.stderr.isatty() and not self.plain

    @property
    def quiet(self) -> bool:
        """Whether nobody reads stderr: --json is given, and stderr is not a terminal."""
        return self.json and not sys.stderr.isatty()

    def say(self, text: str = "") -> None:
        """Print one line for a person, on stderr."""
        safe = terminal_safe(text)
        self._transcript.add(safe)
        if not self.quiet:
            click.echo(safe, err=True, color=False if self.plain else None)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print aligned columns for a person, on stderr."""
        from rich.table import Table
        from rich.text import Text

        table = Table(*headers, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(terminal_safe(str(cell))) for cell in row))
        self._transcript.add_table(table)
        if not self.quiet:
            self._console().print(table)

    def result(self, value: Mapping[str, Any]) -> None:
        """Print the command's one object on stdout if --json is given.

        Call it last, so that failures leave stdout empty. Hosts that were connected to since the
        command began are added to the object.
        """
        if self.json:
            opened = [
                {"host": host, "port": port, "connections": n}
                for (host, port), n in self._opened().items()
            ]
            shown = _encoded({**value, **({"opened": opened} if opened else {})})
            click.echo(shown, file=self._stdout)

    def say_opened(self) -> None:
        """Say for each host how often it was connected to since the command began."""
        for (host, port), n in self._opened().items():
            self.say(f"Network: {plural(n, 'connection')} to {host}:{port}, including failed ones.")

    def _opened(self) -> Counter[tuple[str, int]]:
        return _connections() - self._before

    @contextmanager
    def progress(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """Show a bar on a terminal, or else a line now and then.

        `total`: units of work, None if not known.
        """
        last = _Last(terminal_safe(title), total)
        try:
            if self.quiet:
                yield last.noted(lambda done, note="": None)
            elif not self.live:
                yield last.noted(_Lines(title, total, self._print))
            else:
                with self._bar(title, total) as advance:
                    yield last.noted(advance)
        finally:
            self._transcript.add(last.line())

    def _print(self, text: str) -> None:
        """Print a line that is not kept: one of several about the same progress."""
        click.echo(terminal_safe(text), err=True, color=False if self.plain else None)

    @contextmanager
    def kept_in(self, path: Path) -> Iterator[None]:
        """Keep in the file `path` what is said, from the beginning on, and why the block failed."""
        with self._transcript.kept_in(path):
            yield

    @contextmanager
    def alone_on_stdout(self) -> Iterator[Output]:
        """Give stdout to the command's one object: what else is printed goes to stderr."""
        stdout = sys.stdout
        with redirect_stdout(sys.stderr):
            if not _is_descriptor(stdout, STDOUT):
                yield replace(self, _stdout=stdout)
                return
            stdout.flush()
            saved = os.dup(STDOUT)
            os.dup2(STDERR, STDOUT)  # for libraries in C, and programs that are started
            try:
                with os.fdopen(os.dup(saved), "w", encoding="utf-8") as kept:
                    yield replace(self, _stdout=kept)
            finally:
                os.dup2(saved, STDOUT)
                os.close(saved)

    @contextmanager
    def _bar(self, title: str, total: int | None) -> Iterator[Advance]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            Task,
            TextColumn,
        )
        from rich.text import Text

        left = TimeLeft(total, time.monotonic())

        class Left(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text("" if task.finished else _left(left, time.monotonic()))

        def advance(done: int, note: str = "") -> None:
            left.count(done, time.monotonic())
            progress.update(task, completed=done, note=terminal_safe(note))

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
        )
        note_column = TextColumn("{task.fields[note]}", markup=False)
        with Progress(*columns, Left(), note_column, console=self._console()) as progress:
            task = progress.add_task(terminal_safe(title), total=total, note="")
            yield advance

    def _console(self) -> Any:
        from rich.console import Console

        width = None if self.live else 200  # columns; a log file wraps by itself
        return Console(
            stderr=True, force_terminal=False if self.plain else None, highlight=False, width=width
        )


class _Lines:
    """Progress as plain lines: the first, the last, and one every ten seconds."""

    def __init__(self, title: str, total: int | None, say: Callable[[str], None]) -> None:
        self.title, self.total, self.say = title, total, say
        self.shown = time.monotonic()
        self.left = TimeLeft(total, self.shown)
        say(f"{title} ...")

    def __call__(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        self.left.count(done, now)
        if done != self.total and now - self.shown < SECONDS_BETWEEN_LINES:
            return
        self.shown = now
        share = f"{done}/{self.total}" if self.total else str(done)
        parts = [share, note, "" if done == self.total else _left(self.left, now)]
        self.say(f"{self.title}: {', '.join(part for part in parts if part)}")


class _Last:
    """Progress as one line: where it ended."""

    def __init__(self, title: str, total: int | None) -> None:
        self.title, self.total, self.done, self.note = title, total, 0, ""

    def noted(self, advance: Advance) -> Advance:
        """Return `advance` as one that notes where it is."""

        def note(done: int, note: str = "") -> None:
            self.done, self.note = done, note
            advance(done, note)

        return note

    def line(self) -> str:
        share = f"{self.done}/{self.total}" if self.total else str(self.done)
        return terminal_safe(f"{self.title}: {share}" + (f", {self.note}" if self.note else ""))


def _left(left: TimeLeft, now: float) -> str:
    """Write the time that is left, or nothing where it is not known or over."""
    seconds = left.seconds(now)
    return f"about {duration(seconds)} left" if seconds is not None and seconds >= 1 else ""


def _is_descriptor(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError):  # a stream in memory has none
        return False


def _connections() -> Counter[tuple[str, int]]:
    """Count the attempts to connect through the guard's holes so far, by host and port."""
    return Counter(
        {(each["host"], each["port"]): each["connections"] for each in guard.report()["opened"]}
    )


def _encoded(value: Mapping[str, Any]) -> bytes:
    """Write `value` as JSON. Bytes of a file name that are not UTF-8 become `\\udcff`."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return json.dumps(value, default=lambda array: array.tolist()).encode()


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json and --plain to a command, which gets an `Output` as its first argument."""

    @click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print exactly one JSON object, and nothing else, on stdout.",
    )
    @click.option(
        "--plain",
        is_flag=True,
        help="Print no colours and no animated progress bar, as with NO_COLOR=1.",
    )
    @functools.wraps(function)
    def command(*arguments: Any, as_json: bool, plain: bool, **values: Any) -> Any:
        given = click.get_current_context().find_object(Output) or Output()
        output = replace(given, json=as_json, plain=plain or bool(os.environ.get("NO_COLOR")))
        try:
            if not as_json:
                return function(output, *arguments, **values)
            with output.alone_on_stdout() as alone:
                return function(alone, *arguments, **values)
        finally:
            output.say_opened()

    return command


def show_error(error: OffapiError, output: Output) -> None:
    """Print an error on stderr: what, where and the next step, or with --json an object."""
    if output.json:
        message = f"{error.where}: {error.what}" if error.where else error.what
        shown = {"code": error.code, "message": message, "next": error.next_step}
        click.echo(json.dumps(shown), err=True)  # ASCII: safe for a terminal, and nothing is lost
        return
    first, *more = error_lines(error)
    label = "error:" if output.plain else click.style("error:", fg="red", bold=True)
    click.echo(f"{label} {first.removeprefix('error: ')}", err=True)
    for line in more:
        click.echo(line, err=True)
