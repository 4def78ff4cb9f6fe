"""The level of a task's answers where nobody says, and what answering will take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import offapi
from offapi.checks import is_json
from offapi.predict.level import say_level, strongest_level

SCHEMA = {"type": "object", "properties": {"vendor": {"type": "string"}}}


def make_task(**changes: Any) -> offapi.Task:
    settings: dict[str, Any] = {
        "name": "t",
        "instructions": "Read.",
        "schema": SCHEMA,
        "match": {"vendor": "text"},
        "checks": {"json": (is_json, 1.0)},
    }
    return offapi.Task(**{**settings, **changes})


def test_the_strongest_level_is_what_the_task_declares(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ACME\n")
    quoted = {"type": "object", "properties": {"vendor": {"type": "string", "x-quote": True}}}
    text: dict[str, Any] = {"schema": None, "match": {}, "checks": {"any": (lambda *_: 1, 1.0)}}
    assert strongest_level(make_task()) == "schema"
    assert strongest_level(make_task(bind=offapi.quote("vendor"))) == "source"
    assert strongest_level(make_task(schema=quoted)) == "source"
    names = {"vendor": offapi.one_of(tmp_path / "names.txt")}
    assert strongest_level(make_task(bind=names)) == "register"
    assert strongest_level(make_task(**text)) == "off"


def test_the_level_is_said_with_its_reason() -> None:
    assert say_level("off") == "constrain = off. The model writes freely."
    assert say_level("schema", "because").startswith("constrain = schema, because. Every")
