"""LangSmith's runs, as its API, SDK and exports write them: what went into a model and came out.

    {"run_type": "llm", "inputs": {"messages": [...]}, "outputs": {"generations": [...]}}

Messages may be serialized by LangChain; what a wrapped client returned is read as its API's
response. Child runs in a run are read too. Left out: runs of chains, tools and retrievers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.shared import reasons, settings
from offapi.data.importers.shared.exchange import call_failed, pair_rows
from offapi.data.importers.shared.loose_json import Json, first, items, known, moment, obj, opened
from offapi.data.importers.shared.reading import unwrapped
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.traces import Trace

CHILDREN = ("runs", "child_runs")


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the rows in `record`: a run with its child runs, or a list of runs."""
    children = [obj(each) for name in CHILDREN for each in items(record.get(name))]
    if "run_type" in record or not children:
        yield from _run(record)
    for child in children:
        yield from rows(child)


def _run(run: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    if "inputs" not in run or "outputs" not in run:
        yield reasons.unread(run)
    elif run.get("run_type", "llm") != "llm":
        yield reasons.NOT_A_CALL
    elif call_failed(run):
        yield reasons.FAILED
    else:
        inputs, outputs = opened(run["inputs"]), opened(run["outputs"])
        about = known(**_about(run))
        yield from pair_rows(unwrapped(inputs), unwrapped(outputs), **about)


def _about(run: Mapping[str, Json]) -> dict[str, Json]:
    extra = obj(run.get("extra"))
    asked, metadata = obj(extra.get("invocation_params")), obj(extra.get("metadata"))
    return {
        "id": run.get("id"),
        "group": first(metadata, "session_id", "thread_id", "conversation_id")
        or run.get("trace_id"),
        "ts": moment(run.get("start_time")),
        "trace_id": run.get("trace_id"),
        "model": metadata.get("ls_model_name") or first(asked, "model", "model_name"),
        "tools": asked.get("tools"),
        "params": settings.requested_settings(asked),
    }
