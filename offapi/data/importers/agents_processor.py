"""A tracing processor for the OpenAI Agents SDK that writes prompts and answers to a local file.

The file is JSON Lines. The SDK's own export leaves prompts and answers out. Copy this file into the
agent's project (`offapi traces processor` prints it): it needs nothing but Python, and importing it
from offapi would close that program's network.

    from agents import set_trace_processors
    from agents_processor import LocalTraces

    set_trace_processors([LocalTraces("agent-traces.jsonl")])

It replaces the SDK's export to OpenAI, which `add_trace_processor` would leave on. Tracing itself
must not be disabled. Then: `offapi traces import agents-sdk agent-traces.jsonl --out traces.jsonl`.
Left out: spans of anything but models, and rotating the file.
"""

from __future__ import annotations

import json
import logging
import os
from typing import Any


class LocalTraces:
    """The SDK's processor interface.

    A line that cannot be written is logged, and never stops the agent.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._groups: dict[str, str | None] = {}  # of the traces in progress

    def on_trace_start(self, trace: Any) -> None:
        self._groups[trace.trace_id] = getattr(trace, "group_id", None)

    def on_trace_end(self, trace: Any) -> None:
        self._groups.pop(trace.trace_id, None)

    def on_span_start(self, span: Any) -> None:
        pass

    def on_span_end(self, span: Any) -> None:
        data = span.span_data
        if data.type not in ("response", "generation"):
            return
        try:
            row = {**span.export(), "group_id": self._groups.get(span.trace_id)}
            if data.type == "response":
                row["span_data"] = {
                    **row["span_data"],
                    "input": data.input,
                    "response": data.response,
                }
            line = json.dumps(row, default=_plain, ensure_ascii=False) + "\n"
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            # One unbuffered write, so that lines of several threads stay whole.
            with os.fdopen(file, "wb", buffering=0) as lines:
                lines.write(line.encode("utf-8", "backslashreplace"))
        except Exception:
            logging.getLogger(__name__).exception(
                "a model's answer could not be written to %s", self._path
            )

    def shutdown(self) -> None:
        pass

    def force_flush(self) -> None:
        pass


def _plain(value: Any) -> Any:
    """Return the SDK's pydantic objects as JSON values."""
    if not hasattr(value, "model_dump"):
        return str(value)
    # No warnings: servers deviate from the specification.
    return value.model_dump(mode="json", exclude_none=True, warnings=False)
