"""OpenAI's fine-tuning files for chat models, one training example a line.

    {"messages": [{"role", "content", "tool_calls", "weight"}, ...], "tools": [...]}

The older `functions` and `function_call` become tools and tool calls. A `weight` next to `messages`
(as Fireworks has it) is kept in the source. Left out: preference pairs (DPO), which have two
answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.shared import settings
from offapi.data.importers.shared.loose_json import Json, first
from offapi.data.importers.shared.reasons import BAD_WEIGHT, WEIGHTLESS, Dropped
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace

PAIR = Dropped(
    "a preference pair (DPO), not a chat",
    "There is no single answer to learn; `offapi` has no recipe for pairs.",
)
COMPLETION = Dropped(
    "a prompt with its completion, not a chat",
    "Use the generic format with --map input=$.prompt --map output=$.completion.",
)


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the one row in `record`."""
    yield _row(record)


def _row(record: Mapping[str, Json]) -> Trace | Dropped:
    weight = record.get("weight")
    if "messages" not in record:
        if "preferred_output" in record or "non_preferred_output" in record:
            return PAIR
        if "prompt" in record and "completion" in record:
            return COMPLETION
    if isinstance(weight, bool) or not isinstance(weight, int | float | None):
        return BAD_WEIGHT
    if weight == 0:
        return WEIGHTLESS
    tools = first(record, "tools", "functions")
    params = settings.requested_settings(record)
    return build_trace(
        record.get("messages"), tools=tools, id=record.get("id"), weight=weight, params=params
    )
