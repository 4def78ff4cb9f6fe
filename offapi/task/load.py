"""Load a task file, and word whatever goes wrong while it runs as an error at its line.

The file is Python and is run as the user's own code. Left out: keeping it from the machine.
"""

from __future__ import annotations

import re
import traceback
from dataclasses import fields
from pathlib import Path
from types import ModuleType

from offapi.errors import ConfigError, NetworkBlocked, OffapiError, describe_error, nearest, place
from offapi.task.example import Example
from offapi.task.task import Task


def load_task(path: Path) -> Task:
    """The `task` a Python file defines. The file is run: it is the user's own code.

    ConfigError names the file and the line of whatever keeps it from being a task, NetworkBlocked
    those that asked for the network.
    """
    try:
        source = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"not UTF-8: {error.reason}.", where=str(path), next_step="Save it as UTF-8."
        ) from None
    except OSError as error:
        hint = "Name the Python file that defines `task`; `offapi init` writes one."
        raise ConfigError(
            f"cannot read the task file: {error.strerror}.", where=str(path), next_step=hint
        ) from None
    module = ModuleType(f"offapi_task_{path.stem}")
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise _fault(path, error) from error
    found = getattr(module, "task", None)
    if not isinstance(found, Task):
        what = (
            "defines no `task`"
            if found is None
            else f"`task` is a {type(found).__name__}, not an offapi.Task"
        )
        raise ConfigError(
            f"{what}.", where=str(path), next_step="Write `task = offapi.Task(...)` in it."
        )
    return found


def _fault(path: Path, error: BaseException) -> OffapiError:
    """`error`, raised while the file ran, at the last line of the file that led to it."""
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
        f"{describe_error(error)}.", where=where, next_step="Mend the task file."
    )


def _unknown(error: BaseException, where: str) -> ConfigError | None:
    """The error for an argument that Task or Example does
    not have, None where that is not what `error` says.
    """
    found = re.match(
        r"(Task|Example)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error)
    )
    if not found or not isinstance(error, TypeError):
        return None
    known = [field.name for field in fields({"Task": Task, "Example": Example}[found[1]])]
    step = nearest(found[2], known)
    return ConfigError(
        f"offapi.{found[1]} has no argument {found[2]!r}.", where=where, next_step=step
    )


def _blocked(error: BaseException | None) -> NetworkBlocked | None:
    """The guard's refusal that `error` is, or that a library told as an error of its own."""
    while error is not None and not isinstance(error, NetworkBlocked):
        error = error.__cause__ or (error.__context__ if isinstance(error, OSError) else None)
    return error
