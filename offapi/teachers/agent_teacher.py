"""The protocol of a teacher agent: it answers documents in episodes, with the task's tools.

Left out: files (`agent_log`), and each kind of teacher (`scripted`, `local_agent`,
`endpoint_agent`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from offapi.agent.episode import AgentFinish, AgentLimits
from offapi.data.documents import Document
from offapi.task import Task
from offapi.teachers.teacher import Price, Usage
from offapi.text.display import plural


@dataclass(frozen=True)
class AgentLabel:
    """One document's episode, as messages of OpenAI's shape.

    With a `reason` it failed, and `messages` are what there was nevertheless.
    """

    id: str
    messages: tuple[Mapping[str, Any], ...]
    reason: str = ""  # "kind" or "kind: detail"; empty when the episode ended with an answer
    usage: Usage = Usage()
    seconds: float = 0.0
    tool_errors: int = 0


# The reason of an episode that the end of its session cut off: it is asked again.
STOPPED = "stopped"


class AgentTeacher(Protocol):
    """Anything that answers documents with tools. `name` contains no secret."""

    @property
    def name(self) -> str: ...

    @property
    def price(self) -> Price | None:
        """The price; None: unknown. A teacher on this machine costs nothing."""
        ...

    def episodes(self, documents: Sequence[Document]) -> Generator[AgentLabel, None, None]:
        """Answer lazily, in order of completion; a failed episode is data, with its reason.

        End early with an OffapiError when continuing is useless.
        """
        ...


def reason_of(finish: AgentFinish, limits: AgentLimits) -> str:
    """Return why an episode that ended so has no answer; empty where it has one."""
    if finish == "length":
        return f"length: a turn was cut off at {plural(limits.turn_tokens, 'token')}"
    if finish == "turns":
        return f"turns: more than {limits.turns}"
    if finish == "tokens":
        return f"tokens: no further turn fits in {limits.tokens}"
    if finish == "tool_seconds":
        return f"tool_seconds: more than {limits.tool_seconds:g}"
    return ""


def question_of(task: Task, document: Document) -> str:
    """Return the hash of what is asked: instructions, tools and document."""
    asked = [task.messages(document.text), list(task.tool_schemas)]
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()
