"""The `offapi` command: one module per subcommand, imported when it runs or shows its help.

Only `run` turns errors into messages and exit codes: 0 done, 1 error, 2 wrong usage or
configuration, 3 ran but a gate failed, 130 interrupted.
"""

from __future__ import annotations

import atexit
import errno
import os
import re
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from offapi import __version__
from offapi.cli.output import Output, show_error
from offapi.errors import OffapiError, nearest

COMMANDS = {
    "demo": "Run the whole pipeline on generated invoices, in a few minutes.",
    "doctor": "Check backends, models, memory, disk and the network guard.",
    "init": "Create a task folder that runs as it is, from your own rows too.",
    "explain": "Explain kinds of fields, checks, or the keys of a recipe.",
    "models": "Add, list, verify and remove local models.",
    "label": "Label documents with a teacher model.",
    "traces": "Import traces from other tools' logs, or purge kept ones.",
    "grade": "Score traces with the task's checks and keep the best.",
    "train": "Train a model with a recipe.",
    "predict": "Answer documents with a run or a model, field by field.",
    "serve": "Serve runs and models as an OpenAI-compatible API.",
    "export": "Write a run in the form of another runtime, and check it there.",
    "eval": "Measure a model's accuracy, or compare two, with 95% intervals.",
    "shadow": "Compare a student with the recorded answers of a frontier model.",
    "calibrate": "Promise which of a run's answers need no review.",
    "drift": "Check recent traces for drift.",
    "compare": "Train with every recipe your data allows and compare the results.",
    "curve": "Estimate how accuracy grows with more training examples.",
    "cost": "Compare your own model's cost with the API's; find break-even.",
    "advise": "Recommend a recipe, or advise against training.",
    "report": "Write a run's report as one HTML (or Markdown) file.",
}
NEXT_BY_ERRNO = {
    errno.ENOSPC: "The disk is full: free some space and run the command again.",
    errno.EDQUOT: "The disk quota is used up: free some space and run the command again.",
    errno.EACCES: "Check who owns that path and its permissions.",
    errno.EROFS: "That file system is read-only: choose a path elsewhere.",
    errno.ENOENT: "Check the path.",
    errno.EPERM: "Check who owns that path, and whether the file system or the kernel forbids it.",
    errno.EMFILE: "Too few files may be open: raise the limit (`ulimit -n 1024`) and run it again.",
    errno.ENFILE: "The machine has too many files open: close other programs and run it again.",
    errno.ENOLCK: "That file system has no locks left or knows none: use a folder on a local disk.",
    errno.EIO: "The disk or its connection failed: check it before you rely on what is there.",
    errno.EINVAL: "That file system does not support it: use a folder on a local disk.",
    errno.EXDEV: "The two paths are on different file systems: choose a path on the same one.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}
# commands of which no key lowers the memory
FIXED = (
    *("label", "models", "traces", "grade", "eval", "predict", "export", "drift", "report"),
    "doctor",
)
OTHER_OS = "Check that path and the disk it is on, and run the command again."
# How each library words it: torch on CUDA, torch on the CPU, MLX.
MEMORY_IS_FULL = re.compile(
    r"out of ?memory|can't allocate memory|unable to allocate|attempting to allocate", re.I
)
FEWER = "Close other programs, or use a machine with more memory, and run the command again."
SMALLER = (
    "Lower limits.train_tokens or limits.rollout_rows (`--set limits.train_tokens=1024`, which"
    ' --resume accepts too), or use dtype = "bfloat16" or a smaller model.'
)


class Commands(click.Group):
    """A group that imports a command's module only when that command is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the `command` of `offapi.cli.<name>`; fail with the nearest name if unknown."""
        if cmd_name not in COMMANDS:
            if not ctx.resilient_parsing:  # a shell that completes must get no error
                ctx.fail(f"No such command {cmd_name!r}. {nearest(cmd_name, COMMANDS)}")
            return None
        command: click.Command = import_module(f"offapi.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of `offapi --help` from the table, without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="offapi")
def cli() -> None:
    """Train a small model, on your own machine, for a task that you now send to a large one.

    A task is defined in one Python file: instructions, the answer's format, and checks that score
    an answer. A recipe is a way to train: from labelled documents (sft), from a teacher model's
    answers (distill), from logged answers (filtered_sft), or from the checks alone (grpo). Nothing
    is sent over the network, except by `offapi label` and `offapi serve --escalate` to the endpoint
    you name, and by a judge (a model that grades answers) that your task file places elsewhere.

    \b
    Words:
      teacher   a stronger model that writes answers      student   the small model you train
      gold      an answer known to be right               trace     a logged request with its answer
      adapter   trained weights on top of a base model    group     rows that belong together

    \b
    Start here:
      offapi doctor                        check this machine
      offapi demo                          see the whole pipeline work
      offapi models add demo               add a small model to train
      offapi init my-task                  create a task folder to make your own
      offapi train my-task/distill.toml    train on it

    Exit codes: 0 done, 1 error, 2 wrong usage or configuration, 3 ran, but needs your attention.
    """


def main() -> None:
    """Run the installed `offapi` command. SIGTERM, which schedulers send, acts as Ctrl-C.

    Neither it nor what it starts leaves a core dump: that would hold documents.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    _end(run(sys.argv[1:]))


def _end(code: int) -> NoReturn:
    """End the process as `sys.exit` does, but do not free what libraries have loaded.

    With torch that takes a second, and MLX used in another thread aborts now and then while it is
    freed. An output that cannot be written is left to `sys.exit`, which says so.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(code)
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line, print its error if it fails, and return its exit code."""
    # Progress bars of libraries would break ours, and --json.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # A missing torch is not a problem if MLX computes.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    output = Output(
        json="--json" in arguments, plain="--plain" in arguments or bool(os.environ.get("NO_COLOR"))
    )
    try:
        exit_code = cli.main(list(arguments), prog_name="offapi", standalone_mode=False, obj=output)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except Exception as error:
        if os.environ.get("OFFAPI_DEBUG"):
            import traceback

            traceback.print_exc()
        shown = _as_offapi_error(error, arguments)
        show_error(shown, output)
        return shown.exit_code
    return exit_code if isinstance(exit_code, int) else 0


def _as_offapi_error(error: Exception, arguments: Sequence[str]) -> OffapiError:
    """Return any error as one with a next step, a code and an exit code."""
    if isinstance(error, OffapiError):
        return error
    if isinstance(error, click.Abort):
        hint = " ".join(str(part) for part in error.__cause__.args) if error.__cause__ else ""
        again = "Run the same command again to resume; `offapi train` needs --resume for that."
        return _with_codes(OffapiError("interrupted.", next_step=hint or again), "interrupted", 130)
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        step = f"See `{context.command_path if context else 'offapi'} --help`."
        code = "usage" if isinstance(error, click.UsageError) else "error"
        return _with_codes(
            OffapiError(error.format_message(), next_step=step), code, error.exit_code
        )
    if isinstance(error, OSError) and (error.errno in NEXT_BY_ERRNO or error.filename):
        what = f"{error.strerror or error}.".lower()
        step = NEXT_BY_ERRNO.get(error.errno or 0, OTHER_OS)
        return _with_codes(
            OffapiError(what, where=os.fsdecode(error.filename or ""), next_step=step), "os", 1
        )
    if isinstance(error, MemoryError) or MEMORY_IS_FULL.search(f"{type(error).__name__} {error}"):
        step = FEWER if arguments[:1] and arguments[0] in FIXED else SMALLER
        what = f"the memory is full: {error}" if str(error) else "the memory is full."
        return _with_codes(OffapiError(what, next_step=step), "memory", 1)
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        step = "Set OFFAPI_HOME to a folder for offapi's models, and write paths without ~."
        return _with_codes(OffapiError("this user has no home folder.", next_step=step), "os", 1)
    step = (
        "Run it again with OFFAPI_DEBUG=1 to see the traceback. Report it with the output of"
        " `offapi doctor --json`."
    )
    return _with_codes(
        OffapiError(f"unexpected {type(error).__name__}: {error}", next_step=step), "unexpected", 1
    )


def _with_codes(error: OffapiError, code: str, exit_code: int) -> OffapiError:
    error.code, error.exit_code = code, exit_code
    return error
