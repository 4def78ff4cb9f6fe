"""Write a drafted task as Python that a person reads and edits, and `ruff format` leaves alone.

Left out: running it (`offapi.task.load_task`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offapi.init.infer_task import DraftTask
from offapi.init.python_text import Code, PythonCall, write_text, write_value

HEAD = '''"""{title}

Written by `offapi init`: change whatever is wrong. README.md says what it rests on.
"""

import offapi
from offapi.checks import {checks}
'''


def write_task_file(draft: DraftTask) -> str:
    """Return the source of `task.py`."""
    names = sorted({_function(check) for check in draft.checks.values()})
    title = "What to answer, and how answers are checked."
    source = HEAD.format(title=title, checks=", ".join(names))
    source += f"\nINSTRUCTIONS = {write_text(draft.instructions)}\n"
    if draft.schema is not None:
        source += f"\nSCHEMA = {write_value(draft.schema, before='SCHEMA = ')}\n"
    if draft.examples:
        source += f"\nEXAMPLES = {_examples(draft)}\n"
    call = PythonCall("offapi.Task", _arguments(draft))
    return f"{source}\ntask = {write_value(call, before='task = ')}\n"


def _examples(draft: DraftTask) -> str:
    calls = tuple(
        PythonCall("offapi.Example", [("", document), ("", _plain(answer))])
        for document, answer in draft.examples
    )
    return write_value(calls, before="EXAMPLES = ")


def _arguments(draft: DraftTask) -> list[tuple[str, Any]]:
    checks = {name: (check, 1.0) for name, check in draft.checks.items()}
    arguments: list[tuple[str, Any]] = [
        ("name", draft.name),
        ("instructions", Code("INSTRUCTIONS")),
        ("schema", Code("SCHEMA") if draft.schema is not None else None),
        ("checks", checks),
    ]
    if draft.match:
        arguments.append(("match", dict(draft.match)))
    if draft.registers:
        lists = {
            field: PythonCall("offapi.one_of", [("", f"{field}.txt")]) for field in draft.registers
        }
        arguments.append(("bind", lists))
    if draft.examples:
        arguments.append(("examples", Code("EXAMPLES")))
    return [*arguments, ("max_answer_tokens", draft.max_answer_tokens)]


def _function(check: Code | PythonCall) -> str:
    return check.name if isinstance(check, PythonCall) else check.partition("(")[0]


def _plain(value: Any) -> Any:
    """Return a JSON value in plain dicts and lists, as they are written."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value
