"""Any JSON, with the places of what is needed named by --map.

    --map messages=$.chat                                  a list of messages with the answer last
    --map input=$.prompt --map output=$.completion
    a text or messages, and the answer to them

Also: system, tools, group, gold, id, model, ts. Left
out: templates and joins; write those as a script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.jsonpath import Path, parse_path, value_at
from offapi.data.importers.shared.loose_json import Json, ident, json_text, moment, opened
from offapi.data.importers.shared.messages import is_message
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.importers.shared.trace_or_reason import IN_MESSAGES, build_trace
from offapi.data.traces import Trace
from offapi.errors import ConfigError, nearest

NAMES = ("messages", "input", "output", "system", "tools", "group", "gold", "id", "model", "ts")
NOTHING_THERE = Dropped("nothing lies where --map says", "See the names in your file.")
BAD_GOLD = Dropped(
    "the gold answer is not an object", "Map a place where an object of the answer's fields lies."
)
STEP = "Name the messages (--map messages=$.PATH), or --map input=$.PATH --map output=$.PATH."


def mapped(maps: Mapping[str, str]) -> Callable[[Mapping[str, Json]], Iterator[Trace | Dropped]]:
    """The importer that `maps` (name -> path) describe;
    ConfigError where they do not describe one.
    """
    for name in maps:
        if name not in NAMES:
            raise ConfigError(
                f"{name!r} cannot be mapped.", where="--map", next_step=nearest(name, NAMES)
            )
    if "messages" not in maps and not {"input", "output"} <= set(maps):
        raise ConfigError("the messages are not mapped.", where="--map", next_step=STEP)
    if "messages" in maps and "input" in maps:
        raise ConfigError("both messages and input are mapped.", where="--map", next_step=STEP)
    paths = {name: parse_path(written, f"--map {name}") for name, written in maps.items()}

    def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
        yield _row(record, paths)

    return rows


def _row(record: Mapping[str, Json], paths: Mapping[str, Path]) -> Trace | Dropped:
    found = {name: value_at(record, path) for name, path in paths.items()}
    asked = opened(found.get("messages")) if "messages" in paths else _question(found.get("input"))
    if asked in (None, "", []):
        return NOTHING_THERE
    answer = _answer(found.get("output")) if "output" in paths else IN_MESSAGES
    if answer in (None, ""):
        return reasons.NO_ANSWER
    system = found.get("system")
    if system and isinstance(asked, list):
        asked = [{"role": "system", "content": system}, *asked]
    gold = opened(found.get("gold"))
    if not isinstance(gold, dict | None):
        return BAD_GOLD
    return build_trace(
        asked,
        answer,
        tools=found.get("tools"),
        id=found.get("id"),
        group=ident(found.get("group")) or None,
        gold=gold,
        model=found.get("model"),
        ts=moment(found.get("ts")),
    )


def _question(given: Json) -> Json:
    """What was asked: messages as they are, a text as the user's, other JSON as its text."""
    found = opened(given)
    if isinstance(found, list) and found and all(map(is_message, found)):
        return found
    if given is None or given == "":
        return None
    return [{"role": "user", "content": given if isinstance(given, str) else json_text(given)}]


def _answer(given: Json) -> Json:
    """What was answered: a message as it is, a text as it is, other JSON as its text."""
    return (
        given if given is None or isinstance(given, str) or is_message(given) else json_text(given)
    )
