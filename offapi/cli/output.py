"""What a command prints: one JSON object on stdout with --json, everything for people on stderr.

rich is imported only for a terminal or a table, so that `--help` stays light. With --json
and no terminal, stderr holds at most one error object. Left out: logging.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click
import orjson

from offapi.errors import OffapiError
from offapi.network import guard
from offapi.progress import Advance

SECONDS_BETWEEN_LINES = 10.0  # progress without a terminal


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
        if not self.quiet:
            click.echo(text, err=True, color=False if self.plain else None)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print aligned columns for a person, on stderr."""
        if self.quiet:
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(*headers, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
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
            click.echo(_encoded({**value, **({"opened": opened} if opened else {})}))

    def say_opened(self) -> None:
        """Say for each host how often it was connected to since the command began."""
        for (host, port), n in self._opened().items():
            self.say(f"Network: {n:,} connections to {host}:{port}, including failed ones.")

    def _opened(self) -> Counter[tuple[str, int]]:
        return _connections() - self._before

    @contextmanager
    def progress(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """Show a bar on a terminal, or else a line now and then.

        `total`: units of work, None if not known.
        """
        if self.quiet:
            yield lambda done, note="": None
        elif not self.live:
            yield _Lines(title, total, self.say)
        else:
            with self._bar(title, total) as advance:
                yield advance

    @contextmanager
    def _bar(self, title: str, total: int | None) -> Iterator[Advance]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
        )
        note_column = TextColumn("{task.fields[note]}", markup=False)
        with Progress(
            *columns, TimeRemainingColumn(), note_column, console=self._console()
        ) as progress:
            task = progress.add_task(title, total=total, note="")
            yield lambda done, note="": progress.update(task, completed=done, note=note)

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
        self.started = self.shown = time.monotonic()
        say(f"{title} ...")

    def __call__(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if done != self.total and now - self.shown < SECONDS_BETWEEN_LINES:
            return
        self.shown = now
        share = f"{done}/{self.total}" if self.total else str(done)
        left = (now - self.started) / done * (self.total - done) if self.total and done else 0.0
        parts = [share, note, f"about {left:.0f} s left" if left >= 1 else ""]
        self.say(f"{self.title}: {', '.join(part for part in parts if part)}")


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
        output = Output(as_json, plain or bool(os.environ.get("NO_COLOR")))
        try:
            return function(output, *arguments, **values)
        finally:
            output.say_opened()

    return command


def show_error(error: OffapiError, output: Output) -> None:
    """Print an error on stderr: what, where and the next step, or with --json an object."""
    if output.json:
        message = f"{error.where}: {error.what}" if error.where else error.what
        shown = {"code": error.code, "message": message, "next": error.next_step}
        click.echo(_encoded(shown), err=True)
        return
    click.echo(
        f"{'error:' if output.plain else click.style('error:', fg='red', bold=True)} {error.what}",
        err=True,
    )
    if error.where:
        click.echo(f"  where: {error.where}", err=True)
    if error.next_step:
        click.echo(f"   next: {error.next_step}", err=True)
