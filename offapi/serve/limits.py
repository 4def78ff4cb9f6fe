"""How much one request, one connection, and all together, may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of a request; one beyond them is refused, never cut. Times are in seconds."""

    rows: int = 256  # completions that wait or decode at a time
    max_tokens: int = 4096  # of a completion
    choices: int = 16  # n
    messages: int = 512
    tools: int = 128
    stops: int = 4
    stop_characters: int = 256
    top_logprobs: int = 20
    depth: int = 64  # of objects and lists inside each other
    body_bytes: int = 4 << 20
    file_bytes: int = 512 << 20  # of an uploaded file
    connections: int = 128  # macOS lets a process open 256 files
    header_bytes: int = 16 << 10
    header_seconds: float = 10.0  # until a header is whole
    body_seconds: float = 20.0  # until a body is, and longer at this rate:
    bytes_per_second: int = 1 << 10  # the slowest that a body may come, or an answer be read
    write_seconds: float = 20.0  # between two looks at how much a slow reader has taken
    unread_bytes: int = 256 << 10  # of an answer, which the kernel keeps for its reader
    keep_alive_seconds: int = 30  # longer than OpenAI's client keeps an unused connection
    grace_seconds: int = 30  # for what is being answered when the server is asked to end
