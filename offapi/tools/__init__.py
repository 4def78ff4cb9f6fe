"""Tools that a model may call, and the environments in which it calls them.

What runs other libraries' environments is imported on first use, so that a task stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from offapi.tools.calls import MalformedCall, Observation, ToolCall, Turn

if TYPE_CHECKING:
    from offapi.tools.trl_environment import from_trl
    from offapi.tools.verifiers_environment import from_verifiers, verifiers_documents

__all__ = [
    "MalformedCall",
    "Observation",
    "ToolCall",
    "Turn",
    "from_trl",
    "from_verifiers",
    "verifiers_documents",
]
_HOMES = {
    "from_trl": "offapi.tools.trl_environment",
    "from_verifiers": "offapi.tools.verifiers_environment",
    "verifiers_documents": "offapi.tools.verifiers_environment",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'offapi.tools' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
