"""What quantised weights cost on documents with gold: the same questions before and after.

Answers are free and greedy on both sides, since the other tool does not bind them. Left out: bound
answers, and samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from offapi.backend import Backend
from offapi.data.rows import Row
from offapi.errors import ConfigError
from offapi.evaluation import test_set
from offapi.evaluation.accuracy import Report, score_predictions
from offapi.evaluation.compare import Comparison, compare_answers
from offapi.evaluation.predict import make_prompt, predict
from offapi.evaluation.test_set import count_scoring
from offapi.export.check import Tokens
from offapi.export.reopen import FormQuestions
from offapi.export.source import ExportSource
from offapi.files import atomic
from offapi.files.hashing import sha256_path
from offapi.files.lock import CannotLock
from offapi.progress import Progress
from offapi.stats.contrast import Contrast
from offapi.task import Task
from offapi.text.display import plural

NAMES = ("quantised", "source")  # A and B: a difference below 0 is a loss


@dataclass(frozen=True)
class Documents:
    """Rows with gold, and the task that asks them."""

    task: Task
    path: Path
    rows: Sequence[Row]

    def questions(self, source: ExportSource) -> FormQuestions:
        """Return what an opened form is asked."""
        prompts = [make_prompt(source.run_chat, self.task, row) for row in self.rows]
        return FormQuestions(
            prompts=tuple(prompts),
            max_tokens=self.task.max_answer_tokens,
            stop_ids=source.run_chat.stop_ids,
        )

    def ask(self, backend: Backend, source: ExportSource, progress: Progress) -> tuple[str, ...]:
        """Return the source's answers, and count the scoring in its run."""
        answers = predict(backend, source.run_chat, self.task, self.rows, progress).outputs
        if source.run is not None:
            with suppress(OSError, CannotLock, atomic.NotCommitted):  # a run that is read-only
                count_scoring(source.run, self.path, len(self.rows))
        return answers


@dataclass(frozen=True)
class AccuracyLost:
    """Accuracy of the source and of its quantised form, and the paired difference."""

    before: Report
    after: Report
    compared: Comparison
    file: str
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Return rates and differences with their 95% intervals, as shares."""
        rows = {name: _row(each) for name, each in self.compared.rows.items()}
        return {
            "data": {"file": self.file, "sha256": self.sha256, "documents": self.compared.n},
            "rows": rows,
        }

    def lines(self) -> list[str]:
        """Return a sentence for every field, all fields and the mean."""
        said = [f"Accuracy on {plural(self.compared.n, 'document')}, in percent [95% interval]:"]
        for name, row in self.compared.rows.items():
            said.append(
                f"  {name}: {row.b.percent()} before, {row.a.percent()} after, difference"
                f" {row.difference.points()}"
            )
        return said


def read_documents(source: ExportSource, data: Path | None) -> Documents | None:
    """Return the documents of `data`, or of the run's `val`.

    None for a model without a task, and for an agent.

    Raise ConfigError where there are none to name, and DataError for what cannot be used.
    """
    task, named = source.task, data
    if named is None and source.run is not None:
        val = source.run.manifest.get("config", {}).get("val")
        named = Path(val) if isinstance(val, str) else None
    if data is None and (task is None or task.is_agent):
        return None
    if task is not None and task.is_agent:
        what = "accuracy before and after cannot be measured: the other tool calls no tools."
        raise ConfigError(what, next_step="Leave out --data.")
    if task is None or named is None:
        missing = "--data needs a run with a task" if task is None else "the run has no `val`"
        step = "Name a run." if task is None else "Name documents with gold answers: --data DOCS."
        what = f"accuracy before and after cannot be measured: {missing}."
        raise ConfigError(what, next_step=step)
    return Documents(task, named, test_set.read(named, task))


def measure_loss(
    documents: Documents, source: ExportSource, before: Sequence[str], after: Sequence[Tokens]
) -> AccuracyLost:
    """Score both sides' answers, and compare them document by document."""
    chat = source.run_chat
    prompts = [make_prompt(chat, documents.task, row) for row in documents.rows]
    texts = [chat.answer_text(*each) for each in zip(prompts, after, strict=True)]
    return compare_texts(documents, before, texts)


def compare_texts(
    documents: Documents, before: Sequence[str], after: Sequence[str]
) -> AccuracyLost:
    """Score the answers of both sides, and compare them document by document."""
    task, rows = documents.task, documents.rows
    ours = score_predictions(task, rows, before)
    theirs = score_predictions(task, rows, after)
    compared = compare_answers(theirs.predictions, ours.predictions, names=NAMES)
    return AccuracyLost(ours, theirs, compared, documents.path.name, sha256_path(documents.path))


def _row(row: Contrast) -> dict[str, Any]:
    return {
        "before": asdict(row.b),
        "after": asdict(row.a),
        "difference": asdict(row.difference),
    }
