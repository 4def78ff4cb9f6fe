"""How much one request, and all together, may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of a request; one beyond them is refused, never cut."""

    rows: int = 256  # completions that wait or decode at a time
    max_tokens: int = 4096  # of a completion
    choices: int = 16  # n
    messages: int = 512
    stops: int = 4
    stop_characters: int = 256
    top_logprobs: int = 20
    depth: int = 64  # of objects and lists inside each other
    body_bytes: int = 4 << 20
