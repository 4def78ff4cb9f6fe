"""The `offapi` command: one module per subcommand,
imported when it is invoked or its help is asked for.

`main` alone turns errors into words and exit codes: 0 done, 1 error, 2 usage or
configuration, 3 ran but a gate failed, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from offapi import __version__
from offapi.cli.output import Output, show_error
from offapi.errors import OffapiError, nearest

COMMANDS = {
    "demo": "Distil a small model on generated invoices, from end to end.",
    "doctor": "Check backends, models, memory, disk and the network guard.",
    "init": "Write a new task folder that runs as written.",
    "models": "Add, list and verify the models in the store.",
    "label": "Have a teacher label documents.",
    "traces": "Import traces from the logs of others.",
    "grade": "Grade traces with a task's checks, and keep the best.",
    "train": "Train a model with a recipe.",
    "eval": "Score a model on known answers, or compare two, with intervals.",
    "drift": "Tell from fresh traces whether a model has gone stale.",
    "compare": "Run the roads the data allow, and tell which pays.",
    "curve": "Tell how accuracy grows with examples, and whether more would do.",
    "cost": "Reckon own costs beside the API's, and where they meet.",
    "advise": "Say which road to take, and when to take none.",
    "report": "Write what became of a run as one HTML file, or as Markdown.",
}
NEXT_BY_ERRNO = {
    errno.ENOSPC: "The disk is full: free some space and run the command again.",
    errno.EDQUOT: "The disk quota is used up: free some space and run the command again.",
    errno.EACCES: "Check who owns that path and its permissions.",
    errno.EROFS: "That file system is read-only: choose a path elsewhere.",
    errno.ENOENT: "Check the path.",
}
# Each library's words for it: torch on CUDA, torch on the CPU, MLX.
MEMORY_IS_FULL = re.compile(
    r"out of ?memory|can't allocate memory|unable to allocate|attempting to allocate", re.I
)
SMALLER = (
    "Lower limits.train_tokens or limits.rollout_rows (`--set limits.train_tokens=1024`; with"
    ' --resume too), or take dtype = "bfloat16" or a smaller model.'
)


class Commands(click.Group):
    """A group that knows its commands by name and imports a command's module only when needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `offapi.cli.<name>` and return its
        `command`; an unknown name fails with the nearest one.
        """
        if cmd_name not in COMMANDS:
            if not ctx.resilient_parsing:  # that is, unless a shell asks what could follow
                ctx.fail(f"No such command {cmd_name!r}. {nearest(cmd_name, COMMANDS)}")
            return None
        command: click.Command = import_module(f"offapi.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `offapi --help`, from the table, without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="offapi")
def cli() -> None:
    """Train a small model of your own, on your own machine, with no network.

    \b
    Start here:
      offapi demo                      the whole way on generated invoices, in minutes
      offapi init my-task              a task folder to change into yours
      offapi train my-task/distill.toml
    """


def main() -> None:
    """Entry point of the installed `offapi` command.

    SIGTERM, as schedulers send it, is a Ctrl-C.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; prints every error itself."""
    os.environ.setdefault(
        "HF_HUB_DISABLE_PROGRESS_BARS", "1"
    )  # libraries' own bars would break ours, and --json
    os.environ.setdefault(
        "TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"
    )  # no torch is no fault where MLX computes
    out = Output(
        json="--json" in arguments, plain="--plain" in arguments or bool(os.environ.get("NO_COLOR"))
    )
    try:
        returned = cli.main(list(arguments), prog_name="offapi", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except Exception as error:
        if os.environ.get("OFFAPI_DEBUG"):
            import traceback

            traceback.print_exc()
        shown = _in_words(error)
        show_error(shown, out)
        return shown.exit_code
    return returned if isinstance(returned, int) else 0


def _in_words(error: Exception) -> OffapiError:
    """Any error as one with a next step, a code and an exit code."""
    if isinstance(error, OffapiError):
        return error
    if isinstance(error, click.Abort):
        hint = " ".join(str(part) for part in error.__cause__.args) if error.__cause__ else ""
        again = "Run the same command again; `offapi train` continues a run with --resume."
        return _told(OffapiError("interrupted.", next_step=hint or again), "interrupted", 130)
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        step = f"See `{context.command_path if context else 'offapi'} --help`."
        code = "usage" if isinstance(error, click.UsageError) else "error"
        return _told(OffapiError(error.format_message(), next_step=step), code, error.exit_code)
    if isinstance(error, OSError) and error.errno in NEXT_BY_ERRNO:
        what = f"{error.strerror or error}.".lower()
        return _told(
            OffapiError(
                what, where=str(error.filename or ""), next_step=NEXT_BY_ERRNO[error.errno]
            ),
            "os",
            1,
        )
    if isinstance(error, MemoryError) or MEMORY_IS_FULL.search(f"{type(error).__name__} {error}"):
        return _told(OffapiError(f"the memory is full: {error}", next_step=SMALLER), "memory", 1)
    step = (
        "Run it again with OFFAPI_DEBUG=1 to see the traceback, and report that with `offapi doctor"
        " --json`."
    )
    return _told(
        OffapiError(f"unexpected {type(error).__name__}: {error}", next_step=step), "unexpected", 1
    )


def _told(error: OffapiError, code: str, exit_code: int) -> OffapiError:
    error.code, error.exit_code = code, exit_code
    return error
