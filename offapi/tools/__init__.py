"""Tools that a model may call, and the environments in which it calls them."""

from offapi.tools.calls import MalformedCall, Observation, ToolCall, Turn
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
