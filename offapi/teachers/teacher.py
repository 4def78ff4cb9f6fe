"""The teacher protocol: anything that answers requests, in whatever order the answers are ready.

Left out: files (`labels_file`), prompts (`offapi.task`), and each kind of teacher (`local`,
`endpoint`, `recorded`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import orjson

from offapi.errors import ConfigError
from offapi.teachers.failures import teacher_step
from offapi.tools.calls import MalformedCall, ToolCall

Kind = Literal["local", "endpoint", "recorded"]


@dataclass(frozen=True)
class Usage:
    """Tokens that a teacher read and wrote, by its own count."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True)
class Price:
    """A teacher's price, in dollars per million tokens."""

    prompt: float = 0.0
    completion: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.prompt < math.inf and 0 <= self.completion < math.inf):
            raise ConfigError(
                f"prices must be dollars of 0 or more, got {self.prompt} and {self.completion}."
            )

    def of(self, usage: Usage) -> float:
        """Return the dollars for `usage`."""
        return (usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion) / 1e6


FREE = Price()


@dataclass(frozen=True)
class Request:
    """One document's question, as chat messages in OpenAI's shape. `id` is the document's."""

    id: str
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()  # that may be called, as the server is told them

    @cached_property
    def prompt_sha256(self) -> str:
        """Hash of the messages: a different prompt is a different question."""
        return hashlib.sha256(orjson.dumps(self.messages, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def prompt_bytes(self) -> int:
        """UTF-8 bytes of the messages' contents, and of the tools and their calls as JSON."""
        calls = [message["tool_calls"] for message in self.messages if "tool_calls" in message]
        as_json = sum(len(orjson.dumps(each)) for each in (*calls, *self.tools))
        return as_json + sum(
            len(str(message.get("content", "")).encode("utf-8", "replace"))
            for message in self.messages
        )


@dataclass(frozen=True)
class Answered:
    """A teacher's answer, raw.

    With a `reason` it failed, and `output` is what there was nevertheless.
    """

    id: str
    output: str
    reason: str = ""  # "kind" or "kind: detail"; empty when the answer is whole
    usage: Usage = Usage()
    seconds: float = 0.0  # an endpoint's latency; in a local batch, since the previous answer
    calls: tuple[ToolCall | MalformedCall, ...] = ()  # where the request had tools


class Teacher(Protocol):
    """Anything that answers requests. `name` goes into the labels file and contains no secret."""

    @property
    def name(self) -> str: ...

    @property
    def price(self) -> Price | None:
        """The price; None: unknown. A teacher on this machine costs nothing."""
        ...

    def answers(self, requests: Sequence[Request]) -> Generator[Answered, None, None]:
        """Answer lazily, in order of completion; a failed answer is data, with its reason.

        End early with an OffapiError when continuing is useless; requests not yielded are to be
        asked again.
        """
        ...


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher as the user names it. `target`: a model's name or path, a base URL, or nothing."""

    kind: Kind
    target: str = ""


def parse_teacher(spec: str) -> TeacherSpec:
    """Read `local:NAME`, `http://HOST:PORT/v1`, `https://...` or `recorded`.

    Raise ConfigError for anything else.
    """
    if spec == "recorded":
        return TeacherSpec("recorded")
    if spec.startswith("local:") and spec != "local:":
        return TeacherSpec("local", spec.removeprefix("local:"))
    if spec.startswith(("http://", "https://")):
        return TeacherSpec("endpoint", spec)
    raise ConfigError(
        f"unknown teacher {spec!r}.",
        next_step=teacher_step(spec),
    )
