"""What a comparison learns from and is scored on, read once; and which roads that allows.

Rows near a test document are left out for every road. What a road reads is written to a file
named by its content, so that the same rows are the same file. Left out: labelling.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from offapi.compare.config import RECIPES, Keys, RecipeName
from offapi.data import documents
from offapi.data.documents import Document
from offapi.data.hold_out import hold_out
from offapi.data.rows import Row, as_row, read_rows, row_text
from offapi.data.traces import Trace
from offapi.errors import ConfigError, DataError
from offapi.evaluation import test_set
from offapi.files import atomic, jsonl
from offapi.grading.similarity.contamination import near
from offapi.task import Task, load_task
from offapi.teachers.teacher import parse_teacher

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Material:
    """All that is read. `traces` are rows as the
    filtered_sft recipe reads them: chats, or documents.
    """

    task: Task
    documents: tuple[Document, ...]
    traces: tuple[Mapping[str, Any], ...]
    test: tuple[Row, ...]
    near: int  # documents and traces that were left out, being near the test set
    distil: str | None  # why there can be no distillation, None where there can
    asked: tuple[str, ...] = ()  # the text that each of `traces` answers
    held: tuple[Document, ...] = ()  # set aside for grpo's looks

    @property
    def gold(self) -> list[Document]:
        """The documents whose answer a person gave."""
        return [row for row in self.documents if row.gold is not None]

    def rows(self, recipe: RecipeName) -> Rows:
        """What the road's recipe is given to read."""
        if recipe == "filtered_sft":
            return self.traces
        return [documents.as_row(row) for row in (self.gold if recipe == "sft" else self.documents)]

    def refusal(self, recipe: RecipeName) -> str | None:
        """Why the data do not allow `road`; None where they do."""
        if recipe == "sft" and not self.gold:
            return 'no document has "gold"'
        if recipe == "distill":
            return self.distil
        if recipe == "filtered_sft" and not self.traces:
            return 'there are no traces, and no document has a "recorded_label"'
        return None


def read_material(keys: Keys) -> Material:
    """Read everything; DataError where a row is
    wrong, or the val and test sets share a document.
    """
    task = load_task(keys.task)
    test = tuple(test_set.read(keys.test, task))
    held = [row_text(row) for row in test]
    if keys.val is not None:
        texts = set(held)
        both = [row.id for row in test_set.read(keys.val, task) if row_text(row) in texts]
        if both:
            what = f"document {both[0]!r} is in the test set too ({len(both)} are)."
            raise DataError(what, where=str(keys.val), next_step="Take it out of one of the files.")
    rows = documents.read(keys.documents)
    known, dropped = _apart([(row, row.text) for row in rows], held)
    chats, dropped_too = _apart([((row, text), text) for row, text in _traces(keys, rows)], held)
    if not known:
        what = "every document is near one of the test set."
        raise DataError(what, where=str(keys.documents), next_step="Hold out other documents.")
    more = dropped_too if keys.traces else 0
    said, asked = (tuple(pair[i] for pair in chats) for i in (0, 1))
    return Material(task, tuple(known), said, test, dropped + more, _no_teacher(keys), asked)


def set_aside(found: Material, seed: int) -> Material:
    """Hold out what grpo looks at, as it does itself,
    before its start learns of it; near documents go too.
    """
    rest, held = hold_out(found.documents, seed)
    texts = [row.text for row in held]
    known, _ = _apart([(row, row.text) for row in rest], texts)
    chats, _ = _apart(
        [(pair, pair[1]) for pair in zip(found.traces, found.asked, strict=True)], texts
    )
    said, asked = (tuple(pair[i] for pair in chats) for i in (0, 1))
    return replace(found, documents=tuple(known), traces=said, asked=asked, held=tuple(held))


def write_rows(folder: Path, rows: Rows) -> Path:
    """The file in `folder` that holds `rows`, named
    by their content; written where it is missing.
    """
    data = b"".join(map(jsonl.line, rows))
    path = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.jsonl"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_file(path, data)
    return path


def select_recipes(
    keys: Keys, material: Material
) -> tuple[list[RecipeName], dict[RecipeName, str]]:
    """The roads to take, in their order, and why others are left out.

    ConfigError where a named one cannot be.
    """
    refused = {recipe: why for recipe in RECIPES if (why := material.refusal(recipe)) is not None}
    wanted = set(keys.recipes or RECIPES)
    if keys.recipes is not None:
        if keys.start not in (None, "base") and "grpo" in wanted:
            wanted.add(keys.start)  # type: ignore[arg-type]
        named = next((recipe for recipe in RECIPES if recipe in wanted and recipe in refused), None)
        if named is not None:
            raise ConfigError(
                f"{named} cannot be taken: {refused[named]}.",
                where="recipes",
                next_step="Leave it out.",
            )
        refused |= {recipe: "not asked for" for recipe in RECIPES if recipe not in wanted}
    return [recipe for recipe in RECIPES if recipe in wanted and recipe not in refused], refused


def _traces(keys: Keys, rows: Sequence[Document]) -> Iterable[tuple[Mapping[str, Any], str]]:
    """The rows for filtered_sft, and the text each answers."""
    found = read_rows(keys.traces) if keys.traces else rows
    answered = [row for row in found if isinstance(row, Trace) or row.recorded_label is not None]
    return [(as_row(row), row_text(row)) for row in answered]


def _apart(rows: Iterable[tuple[Any, str]], held: Sequence[str]) -> tuple[list[Any], int]:
    """The rows not near a held-out text, and how many are."""
    found = list(rows)
    if not found:
        return [], 0
    spoiled = {pair.row for pair in near([text for _, text in found], held)}
    same = set(held)
    kept = [row for i, (row, text) in enumerate(found) if i not in spoiled and text not in same]
    return kept, len(found) - len(kept)


def _no_teacher(keys: Keys) -> str | None:
    if keys.labels is not None:
        return None
    if keys.teacher is None:
        return "no teacher is named: set teacher, or labels to what `offapi label` wrote"
    if parse_teacher(keys.teacher).kind == "endpoint":
        return (
            f"a comparison asks no endpoint: label with `offapi label --teacher {keys.teacher}`,"
            " then set labels"
        )
    return None
