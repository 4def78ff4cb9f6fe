"""Tools that a model may call, and the environments in which it calls them."""

from offapi.tools.calls import MalformedCall, Observation, ToolCall, Turn

__all__ = ["MalformedCall", "Observation", "ToolCall", "Turn"]
