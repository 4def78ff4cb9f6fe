"""One answer that a server gave, as it is kept: a trace with what gave it.

Left out: keeping it (`offapi.data.captured`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offapi.data.traces import Message


@dataclass(frozen=True, kw_only=True)
class CapturedAnswer:
    """One answer and what gave it.

    `response` is the id of the response; its choices beyond the first have an index in `id`, and
    `group` names them all. `base` and `adapter` are names with hashes. `fields` are the answer's,
    with confidences where the model has them. `escalated` says which other model was asked to
    answer instead, if one was.
    """

    id: str
    response: str
    time: float  # seconds since 1970
    model: str
    messages: Sequence[Message]  # without the answer
    answer: str
    finish: str
    base: Mapping[str, Any]
    adapter: Mapping[str, Any] | None = None
    group: str | None = None
    usage: Mapping[str, Any] | None = None
    params: Mapping[str, Any] | None = None
    fields: Mapping[str, Any] | None = None
    escalated: Mapping[str, Any] | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    calls: Sequence[Mapping[str, Any]] = ()  # the answer's, in OpenAI's shape

    def as_row(self) -> dict[str, Any]:
        """Return the answer as a row that `offapi.data.traces` reads."""
        about = {
            "format": "captured",
            "model": self.model,
            "ts": self.time,
            "finish_reason": self.finish,
            "base": self.base,
            "adapter": self.adapter,
            "usage": self.usage,
            "params": self.params,
            "fields": self.fields,
            "escalated": self.escalated,
        }
        group = {} if self.group is None else {"group": self.group}
        calls = {"tool_calls": list(self.calls)} if self.calls else {}
        return {
            "id": self.id,
            "messages": [*self.messages, {"role": "assistant", "content": self.answer, **calls}],
            **({"tools": list(self.tools)} if self.tools else {}),
            **group,
            "source": {name: value for name, value in about.items() if value is not None},
        }
