"""Load a task file, and report whatever goes wrong while it runs as an error at its line.

The file is Python and runs as the user's own code. Left out: a sandbox.
"""

from __future__ import annotations

import re
import traceback
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

from offapi.errors import ConfigError, NetworkBlocked, OffapiError, error_sentence, nearest, place
from offapi.task.bind import located
from offapi.task.example import Example
from offapi.task.task import Task


def load_task(path: Path) -> Task:
    """Run a Python file and return the `task` it defines. It runs as the user's own code.

    Raise ConfigError with the file and the line of whatever is wrong, NetworkBlocked if it asked
    for the network.
    """
    try:
        source = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the task file is not UTF-8: {error.reason}.",
            where=str(path),
            next_step="Save it as UTF-8.",
        ) from None
    except OSError as error:
        hint = "Name the Python file that defines `task`; `offapi init` writes one."
        raise ConfigError(
            f"cannot read the task file: {error.strerror}.", where=str(path), next_step=hint
        ) from None
    module = ModuleType(f"offapi_task_{path.stem}")
    module.__file__ = str(path.absolute())  # a tool may run in another folder
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise _fault(path, error) from error
    task = getattr(module, "task", None)
    if not isinstance(task, Task):
        what = "the file defines no `task`."
        if task is not None:
            what = f"`task` must be an offapi.Task, got a {type(task).__name__}."
        raise ConfigError(what, where=str(path), next_step="Write `task = offapi.Task(...)` in it.")
    bind = located(task.bind, path.parent) if task.bind else task.bind
    return replace(task, bind=bind, file=path.absolute())


def _fault(path: Path, error: BaseException) -> OffapiError:
    """Return `error`, raised while the file ran, as an error at the line that led to it."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    line = (
        error.lineno
        if isinstance(error, SyntaxError) and error.filename == str(path)
        else (lines or [None])[-1]
    )
    where = place(path, line)
    if blocked := _blocked(error):
        return NetworkBlocked(blocked.what, where=where, next_step=blocked.next_step)
    if isinstance(error, OffapiError):
        return ConfigError(error.what, where=where, next_step=error.next_step)
    return _unknown(error, where) or ConfigError(
        error_sentence(error), where=where, next_step="Fix the task file."
    )


def _unknown(error: BaseException, where: str) -> ConfigError | None:
    """Return the error for an argument that Task or Example does not have.

    None where `error` is something else.
    """
    match = re.match(
        r"(Task|Example)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error)
    )
    if not match or not isinstance(error, TypeError):
        return None
    known = [field.name for field in fields({"Task": Task, "Example": Example}[match[1]])]
    step = nearest(match[2], known)
    return ConfigError(
        f"offapi.{match[1]} has no argument {match[2]!r}.", where=where, next_step=step
    )


def _blocked(error: BaseException | None) -> NetworkBlocked | None:
    """Return the guard's refusal behind `error`, which a library may have wrapped in its own."""
    while error is not None and not isinstance(error, NetworkBlocked):
        error = error.__cause__ or (error.__context__ if isinstance(error, OSError) else None)
    return error
