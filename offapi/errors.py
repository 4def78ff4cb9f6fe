"""Errors a user sees: what happened, where, and the next step.

There is one class per kind of mistake. The command line prints the errors and sets the exit
code; nothing else calls `sys.exit`.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class OffapiError(Exception):
    """Base of every error that the user can fix.

    `what` is the problem, `where` the file, line and field, `next_step` what to do.
    """

    exit_code = 1
    code = "error"

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        self.what, self.where, self.next_step = what, where, next_step
        super().__init__(
            " ".join(part for part in (where and f"{where}:", what, next_step) if part)
        )


class DataError(OffapiError):
    """A row, file or folder of documents, examples or traces cannot be used."""

    code = "data"

    @classmethod
    def at(
        cls,
        what: str,
        *,
        path: Path | str,
        line: int | None = None,
        field: str = "",
        next_step: str = "",
    ) -> DataError:
        """Make an error at `path`, its 1-based `line` and its `field`."""
        return cls(what, where=place(path, line, field), next_step=next_step)


class ConfigError(OffapiError):
    """A recipe, task file or option is wrong (exit code 2, like click's usage errors)."""

    exit_code = 2
    code = "config"


class ModelError(OffapiError):
    """A model folder is missing, damaged or refused."""

    code = "model"


class BackendError(OffapiError):
    """A backend is not installed, or cannot do what was asked."""

    code = "backend"


class TeacherError(OffapiError):
    """A teacher did not answer, or may not be used."""

    code = "teacher"


class ExportError(OffapiError):
    """An exported model does not compute what it was exported from."""

    code = "export"


class RunError(OffapiError):
    """A run folder is locked, damaged or does not match what is being resumed."""

    code = "run"


class NetworkBlocked(OffapiError, PermissionError):
    """The offline guard refused a connection or a name lookup."""

    code = "network"


class GateFailed(OffapiError):
    """The command ran, but a gate failed (exit code 3)."""

    exit_code = 3
    code = "gate"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `Did you mean 'x'?`, or the known names if none is close."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names) or 'none'}."


def place(path: Path | str, line: int | None = None, field: str = "") -> str:
    """Write a place in a file as `train.jsonl, line 3, field 'gold'`; lines count from 1."""
    at_line = f", line {line}" if line is not None else ""
    return f"{path}{at_line}" + (f", field {field!r}" if field else "")


def describe_error(error: BaseException) -> str:
    """Write an error's type and message as `ValueError: no such field`."""
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:  # its class is the user's own
        text = ""
    text = text.encode("utf-8", "backslashreplace").decode()  # it may quote half a character
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def error_sentence(error: BaseException) -> str:
    """Write `describe_error` as a sentence that ends in one mark, also if it asks something."""
    text = describe_error(error)
    return text if text.endswith((".", "?", "!")) else f"{text}."
