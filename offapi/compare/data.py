"""The data of a comparison, read once, and the recipes that they allow.

Rows near a test document are left out for every recipe. The rows of an arm are written to a file
named by its content, so that the same rows are the same file. Left out: labelling.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from offapi.grading.similarity.contamination import near_or_same
from offapi.task import Task, load_task
from offapi.teachers.teacher import parse_teacher
from offapi.text.display import plural
from offapi.workers.removed import removed_at_end

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Material:
    """All data of a comparison. `traces` are the rows of filtered_sft: chats or documents."""

    task: Task
    documents: tuple[Document, ...]
    traces: tuple[Mapping[str, Any], ...]
    test: tuple[Row, ...]
    near: int  # documents and traces left out because they are near a test document
    distil: str | None  # why the data do not allow distillation; None if they do
    asked: tuple[str, ...] = ()  # the text that each of `traces` answers
    held: tuple[Document, ...] = ()  # set aside for grpo's evaluations

    @property
    def gold(self) -> list[Document]:
        """The documents with an answer from a person."""
        return [row for row in self.documents if row.gold is not None]

    def rows(self, recipe: RecipeName) -> Rows:
        """Return the rows that the recipe trains on."""
        if recipe == "filtered_sft":
            return self.traces
        return [documents.as_row(row) for row in (self.gold if recipe == "sft" else self.documents)]

    def refusal(self, recipe: RecipeName) -> str | None:
        """Return why the data do not allow `recipe`; None if they do."""
        if recipe == "sft" and not self.gold:
            return 'no document has "gold"'
        if recipe == "distill":
            return self.distil
        if recipe == "filtered_sft" and not self.traces:
            return 'the key `traces` names no file, and no document has a "recorded_label"'
        return None


def read_material(keys: Keys) -> Material:
    """Read all data.

    Raise DataError for a bad row, or if the val and test sets share a document.
    """
    task = load_task(keys.task)
    if task.is_agent:
        what = "a comparison asks for single answers, and the task has tools."
        step = (
            'Train filtered_sft with prompt = "trace" on the file that `offapi label` wrote, and'
            " grpo; then run `offapi eval` on each."
        )
        raise ConfigError(what, where=str(keys.task), next_step=step)
    test = tuple(test_set.read(keys.test, task))
    held = [row_text(row) for row in test]
    if keys.val is not None:
        texts = set(held)
        shared = [row.id for row in test_set.read(keys.val, task) if row_text(row) in texts]
        if shared:
            what = f"{plural(len(shared), 'document')} also in the test set; first: {shared[0]!r}."
            step = "Remove them from one of the two files."
            raise DataError(what, where=str(keys.val), next_step=step)
    rows = documents.read(keys.documents)
    kept, dropped = _drop_near([(row, row.text) for row in rows], held)
    answered = [((row, text), text) for row, text in _traces(keys, rows)]
    chats, dropped_chats = _drop_near(answered, held)
    if not kept:
        what = "every document is near a test document."
        raise DataError(what, where=str(keys.documents), next_step="Use other test documents.")
    near_chats = dropped_chats if keys.traces else 0
    traces = tuple(row for row, _ in chats)
    asked = tuple(text for _, text in chats)
    return Material(task, tuple(kept), traces, test, dropped + near_chats, _no_teacher(keys), asked)


def set_aside(material: Material, seed: int) -> Material:
    """Hold out grpo's evaluation documents, as grpo itself would, and drop rows near them.

    Otherwise the student that grpo starts from would learn them.
    """
    rest, held = hold_out(material.documents, seed)
    texts = [row.text for row in held]
    kept, _ = _drop_near([(row, row.text) for row in rest], texts)
    pairs = zip(material.traces, material.asked, strict=True)
    chats, _ = _drop_near([(pair, pair[1]) for pair in pairs], texts)
    traces = tuple(row for row, _ in chats)
    asked = tuple(text for _, text in chats)
    return replace(material, documents=tuple(kept), traces=traces, asked=asked, held=tuple(held))


def write_rows(folder: Path, rows: Rows) -> Path:
    """Return the file in `folder` named by the content of `rows`. Write it if it is missing."""
    data = b"".join(map(jsonl.line, rows))
    path = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.jsonl"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_file(path, data)
    return path


@contextmanager
def dry_run_folder(out: Path) -> Iterator[Path]:
    """Keep a folder for the rows of a dry run where `out` is or will be, while the block lasts."""
    parents = (each for each in (out.absolute(), *out.absolute().parents) if each.is_dir())
    folder = Path(tempfile.mkdtemp(prefix=".dry-run-", dir=next(parents)))
    with removed_at_end(folder):
        yield folder


def select_recipes(
    keys: Keys, material: Material
) -> tuple[list[RecipeName], dict[RecipeName, str]]:
    """Return the recipes to run, in order, and why the others are left out.

    Raise ConfigError if the data do not allow a recipe that the keys name.
    """
    refused = {recipe: why for recipe in RECIPES if (why := material.refusal(recipe)) is not None}
    wanted = set(keys.recipes or RECIPES)
    if keys.recipes is not None:
        if keys.start not in (None, "base") and "grpo" in wanted:
            wanted.add(keys.start)  # type: ignore[arg-type]
        named = next((recipe for recipe in RECIPES if recipe in wanted and recipe in refused), None)
        if named is not None:
            raise ConfigError(
                f"{named} cannot run: {refused[named]}.",
                where="recipes",
                next_step="Remove it from recipes, or add what is missing.",
            )
        refused |= {recipe: "not asked for" for recipe in RECIPES if recipe not in wanted}
    return [recipe for recipe in RECIPES if recipe in wanted and recipe not in refused], refused


def _traces(keys: Keys, rows: Sequence[Document]) -> Iterable[tuple[Mapping[str, Any], str]]:
    """Return the rows for filtered_sft, each with the text it answers."""
    candidates = read_rows(keys.traces) if keys.traces else rows
    answered = [
        row for row in candidates if isinstance(row, Trace) or row.recorded_label is not None
    ]
    return [(as_row(row), row_text(row)) for row in answered]


def _drop_near(pairs: Sequence[tuple[Any, str]], held: Sequence[str]) -> tuple[list[Any], int]:
    """Return the rows that are not near a held-out text, and how many were dropped."""
    spoiled = near_or_same([text for _, text in pairs], held)
    kept = [row for i, (row, _) in enumerate(pairs) if i not in spoiled]
    return kept, len(pairs) - len(kept)


def _no_teacher(keys: Keys) -> str | None:
    if keys.labels is not None:
        return None
    if keys.teacher is None:
        return "no teacher is named: set teacher, or set labels to a file `offapi label` wrote"
    if parse_teacher(keys.teacher).kind == "endpoint":
        return (
            "a comparison never asks an endpoint: first run"
            f" `offapi label --teacher {keys.teacher}`, then set labels"
        )
    return None
