"""How far a task's answers are bound, where nobody says.

Left out: the binding (`offapi.constrain`).
"""

from __future__ import annotations

from offapi.constrain import Level
from offapi.constrain.fields import BoundFields
from offapi.task import Task
from offapi.task.bind import OneOf

MEANS: dict[Level, str] = {
    "off": "The model writes freely.",
    "schema": "Every answer fits the task's schema.",
    "source": "Quoted fields, numbers and dates are what the document prints.",
    "register": "Quoted fields are what the document prints, others names of their lists.",
}


def strongest_level(task: Task) -> Level:
    """Return the strongest level that `task` declares: `bind` and x-quote; else "schema"."""
    if task.free_text:
        return "off"
    declared = BoundFields(task, "register").declared.values()
    if any(isinstance(bound, OneOf) for bound in declared):
        return "register"
    return "source" if declared else "schema"


def say_level(level: Level, why: str = "") -> str:
    """Return one line on the level, and `why` it was taken."""
    because = f", {why}" if why else ""
    return f"constrain = {level}{because}. {MEANS[level]}"
