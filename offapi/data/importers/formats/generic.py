"""Any JSON, where --map names the places of what is needed.

    --map messages=$.chat                                  a list of messages, the answer last
    --map input=$.prompt --map output=$.completion         a text or messages, and the answer

Also: system, tools, group, gold, id, model, ts. Left out: templates and joins; write those as a
script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.exchange import pair_rows
from offapi.data.importers.shared.jsonpath import Path, parse_path, value_at
from offapi.data.importers.shared.loose_json import Json, ident, moment, opened
from offapi.data.importers.shared.reading import asked_messages, is_request, read_request
from offapi.data.importers.shared.reasons import Dropped, Unusable
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace
from offapi.errors import ConfigError, nearest

NAMES = ("messages", "input", "output", "system", "tools", "group", "gold", "id", "model", "ts")
NOTHING_THERE = Dropped(
    "nothing lies where --map says", "Compare the paths with the names in your file."
)
BAD_GOLD = Dropped(
    "the gold answer is neither an object nor a text",
    "Map gold to an object with the answer's fields, or to a text for a task that answers text.",
)
STEP = "Write --map messages=$.PATH, or --map input=$.PATH --map output=$.PATH."


def mapped(maps: Mapping[str, str]) -> Callable[[Mapping[str, Json]], Iterator[Trace | Dropped]]:
    """Return the importer that `maps` (name -> path) describe.

    Raise ConfigError where they do not describe one.
    """
    for name in maps:
        if name not in NAMES:
            raise ConfigError(
                f"{name!r} is not a name that can be mapped.",
                where="--map",
                next_step=nearest(name, NAMES),
            )
    if "messages" not in maps and not {"input", "output"} <= set(maps):
        raise ConfigError("the messages are not mapped.", where="--map", next_step=STEP)
    if "messages" in maps and "input" in maps:
        raise ConfigError(
            "both messages and input are mapped; only one may be.", where="--map", next_step=STEP
        )
    paths = {name: parse_path(written, f"--map {name}") for name, written in maps.items()}

    def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
        yield from _rows(record, paths)

    return rows


def _rows(record: Mapping[str, Json], paths: Mapping[str, Path]) -> Iterator[Trace | Dropped]:
    values = {name: value_at(record, path) for name, path in paths.items()}
    gold = opened(values.get("gold"))
    if not isinstance(gold, dict | str | None):
        yield BAD_GOLD
        return
    about = {
        "tools": values.get("tools"),
        "id": values.get("id"),
        "group": ident(values.get("group")) or None,
        "gold": gold,
        "model": values.get("model"),
        "ts": moment(values.get("ts")),
    }
    try:
        yield from _chat(values, paths, about)
    except Unusable as error:
        yield error.dropped


def _chat(
    values: Mapping[str, Json], paths: Mapping[str, Path], about: Mapping[str, Json]
) -> Iterator[Trace | Dropped]:
    """Yield the rows in the mapped values; the answer may be the last of the messages."""
    asked = opened(values.get("messages" if "messages" in paths else "input"))
    if asked in (None, "", []):
        yield NOTHING_THERE
        return
    if "output" not in paths:
        chat = asked_messages(asked) if is_request(asked) else asked
        yield build_trace(_with_system(chat, values), **about)
        return
    if values.get("output") in (None, ""):
        yield reasons.NO_ANSWER
        return
    given = values["messages" if "messages" in paths else "input"]
    request = {**(read_request(given) or {})}
    if values.get("system"):
        request = {**request, "messages": _with_system(asked_messages(request), values)}
    yield from pair_rows(request, values["output"], **about)


def _with_system(messages: Json, values: Mapping[str, Json]) -> Json:
    """Return messages with the mapped system prompt before them, if there is one."""
    system = values.get("system")
    if not system or not isinstance(messages, list):
        return messages
    return [{"role": "system", "content": system}, *messages]
