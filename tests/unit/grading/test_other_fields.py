"""Answers of another task are named by their fields."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from offapi.checks import is_json
from offapi.grading.other_fields import other_fields
from offapi.task import Task

FIELDS = ("vendor", "date", "total")
TASK = Task(
    name="invoices",
    instructions="Read it.",
    schema={
        "type": "object",
        "properties": {name: {"type": "string"} for name in FIELDS},
        "required": list(FIELDS),
    },
    checks={"json": (is_json, 1.0)},
    match=dict.fromkeys(FIELDS, "text"),
)
TICKET = {"category": "billing", "priority": "high"}


def test_other_fields_are_named_with_those_of_the_task() -> None:
    said = other_fields(TASK, [TICKET, {**TICKET, "total": "5"}])
    assert said.startswith(
        "The answers have the fields category, priority, total;"
        " the task asks for vendor, date, total."
    )


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [TICKET, dict.fromkeys(FIELDS, "x")],
        [{**dict.fromkeys(FIELDS, "x"), "more": 1}],
    ],
)
def test_nothing_is_said_where_an_answer_fits(answers: list[dict[str, Any]]) -> None:
    assert other_fields(TASK, answers) == ""


def test_without_required_fields_the_properties_count() -> None:
    schema = {name: value for name, value in (TASK.schema or {}).items() if name != "required"}
    assert "asks for vendor, date, total" in other_fields(replace(TASK, schema=schema), [TICKET])
