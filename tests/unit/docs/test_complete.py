"""The pages' tables name everything that the code offers: checks, formats, rules, gates, keys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from typing import get_args

import pytest
from families import FAMILIES, config_of
from pages import DOCS

import offapi.checks
from offapi.checks.kinds import KindName
from offapi.data.importers.formats.generic import NAMES
from offapi.data.importers.importer import FORMATS
from offapi.policy_loss import RULES
from offapi.rl.gates import GATES
from offapi.task.task import Task

TYPES = {"Answer", "Check", "Context", "Kind", "KindName", "Match", "Verdict"}
OFFERED: dict[str, tuple[str, Iterable[str]]] = {
    "checks": ("tasks-and-checks.md", set(offapi.checks.__all__) - TYPES),
    "kinds": ("tasks-and-checks.md", get_args(KindName)),
    "arguments": ("tasks-and-checks.md", [field.name for field in fields(Task)]),
    "formats": ("traces.md", FORMATS),
    "maps": ("traces.md", NAMES),
    "rules": ("recipes/grpo.md", RULES),
    "gates": ("recipes/grpo.md", GATES),
}


@pytest.mark.parametrize("kind", OFFERED)
def test_page_names_all(kind: str) -> None:
    name, offered = OFFERED[kind]
    page = (DOCS / name).read_text("utf-8")
    code = " ".join(re.findall(r"`([^`\n]+)`", page))
    missing = [one for one in offered if not re.search(rf"(?<![\w-]){one}(?![\w-])", code)]
    assert missing == []


def test_the_models_table_names_every_family() -> None:
    page = (DOCS / "models.md").read_text("utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    named = {cells[0].removeprefix("| "): cells for cells in rows}
    assert [family for family in FAMILIES if family not in named] == []
    for family in FAMILIES:
        assert f"`{config_of(family)['model_type']}`" == named[family][1]
        computed = [cell.split(",")[0] for cell in named[family][2:4]]
        assert set(computed) <= {"packed", "library"} or any("not: " in one for one in computed)
