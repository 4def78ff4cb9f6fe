"""offapi: train a small model of your own, on your own machine, without a network.

Importing it installs the offline guard (see `offapi.network.guard`). The names below are imported
on first use, so that `import offapi` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from offapi.network.guard import install as _install

if TYPE_CHECKING:
    from offapi.checks import Kind
    from offapi.predict.predictor import open
    from offapi.task import Example, Task
    from offapi.task.bind import one_of, quote
    from offapi.teachers.judge import judge
    from offapi.tools.episode_state import EpisodeState
    from offapi.tools.mcp_server import mcp

__version__ = "0.1.0"
__all__ = [
    "EpisodeState",
    "Example",
    "Kind",
    "Task",
    "__version__",
    "judge",
    "mcp",
    "one_of",
    "open",
    "quote",
]

_HOMES = {
    "EpisodeState": "offapi.tools.episode_state",
    "Task": "offapi.task",
    "Example": "offapi.task",
    "Kind": "offapi.checks.kinds",
    "judge": "offapi.teachers.judge",
    "mcp": "offapi.tools.mcp_server",
    "one_of": "offapi.task.bind",
    "open": "offapi.predict.predictor",
    "quote": "offapi.task.bind",
}

_install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'offapi' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
