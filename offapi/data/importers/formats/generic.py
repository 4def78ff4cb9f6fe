"""Any JSON, where --map names the places of what is needed.

    --map messages=$.chat                                  a list of messages, the answer last
    --map input=$.prompt --map output=$.completion         a text or messages, and the answer

Also: system, tools, group, gold, id, model, ts. Left out: templates and joins; write those as a
script.
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
NOTHING_THERE = Dropped(
    "nothing lies where --map says", "Compare the paths with the names in your file."
)
BAD_GOLD = Dropped(
    "the gold answer is not an object", "Map gold to an object with the answer's fields."
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
        yield _row(record, paths)

    return rows


def _row(record: Mapping[str, Json], paths: Mapping[str, Path]) -> Trace | Dropped:
    values = {name: value_at(record, path) for name, path in paths.items()}
    asked = (
        opened(values.get("messages")) if "messages" in paths else _question(values.get("input"))
    )
    if asked in (None, "", []):
        return NOTHING_THERE
    answer = _answer(values.get("output")) if "output" in paths else IN_MESSAGES
    if answer in (None, ""):
        return reasons.NO_ANSWER
    system = values.get("system")
    if system and isinstance(asked, list):
        asked = [{"role": "system", "content": system}, *asked]
    gold = opened(values.get("gold"))
    if not isinstance(gold, dict | None):
        return BAD_GOLD
    return build_trace(
        asked,
        answer,
        tools=values.get("tools"),
        id=values.get("id"),
        group=ident(values.get("group")) or None,
        gold=gold,
        model=values.get("model"),
        ts=moment(values.get("ts")),
    )


def _question(given: Json) -> Json:
    """Return what was asked: messages unchanged, a text as the user's, other JSON as its text."""
    messages = opened(given)
    if isinstance(messages, list) and messages and all(map(is_message, messages)):
        return messages
    if given is None or given == "":
        return None
    return [{"role": "user", "content": given if isinstance(given, str) else json_text(given)}]


def _answer(given: Json) -> Json:
    """Return what was answered: a message or a text unchanged, other JSON as its text."""
    if given is None or isinstance(given, str) or is_message(given):
        return given
    return json_text(given)
