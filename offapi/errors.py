"""Errors a user sees: what happened, where, and the next step.

One class for each boundary that can be crossed wrongly. The CLI prints them and
chooses the exit code; nothing else in the code base calls `sys.exit`.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class OffapiError(Exception):
    """Base of every error that is the user's to mend.

    `what` says what is wrong, `where` names file, line and field, `next_step` what to do.
    """

    exit_code = 1
    code = "error"

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        self.what, self.where, self.next_step = what, where, next_step
        super().__init__(
            " ".join(part for part in (where and f"{where}:", what, next_step) if part)
        )


class DataError(OffapiError):
    """A row, file or folder of documents, examples or traces is not usable."""

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
        """An error at `path`, its 1-based `line` and `field`."""
        where = (
            str(path)
            + (f", line {line}" if line is not None else "")
            + (f", field {field!r}" if field else "")
        )
        return cls(what, where=where, next_step=next_step)


class ConfigError(OffapiError):
    """A recipe, task file or option is wrong (exit code 2, as click's usage errors)."""

    exit_code = 2
    code = "config"


class ModelError(OffapiError):
    """A model folder is missing, damaged or refused."""

    code = "model"


class BackendError(OffapiError):
    """A backend is not installed, or cannot do what was asked of it."""

    code = "backend"


class TeacherError(OffapiError):
    """A teacher did not answer, or is not allowed."""

    code = "teacher"


class RunError(OffapiError):
    """A run folder is locked, damaged or does not match what is being resumed."""

    code = "run"


class NetworkBlocked(OffapiError, PermissionError):
    """The offline guard refused a connection or a name lookup."""

    code = "network"


class GateFailed(OffapiError):
    """The command ran, but a gate it was asked to hold failed (exit code 3)."""

    exit_code = 3
    code = "gate"


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the known names when none is close."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names) or 'none'}."


def describe_error(error: BaseException) -> str:
    """Return the type of `error` and what it says."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
