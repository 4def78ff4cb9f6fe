"""Label documents with a model on every Ray worker: lines of documents in, lines of labels out.

The lines are those of a labels file. Left out: endpoints (one machine can ask them), and skipping
documents that an earlier file answers: give Ray only the documents that are due.
"""

from __future__ import annotations

from pathlib import Path

from offapi.backend import default_backend
from offapi.models import store
from offapi.on_ray.lines import Batch, Lines, as_batch, read_document, read_rows
from offapi.task import load_task
from offapi.teachers.labelling import build_requests, make_label
from offapi.teachers.local import Local


class LabelBatches:
    """The teacher `model` for the task in `task_file`, with its worked examples (or `shots`).

    `model` is a name in the worker's store or a folder. Raise what loading them raises.
    """

    def __init__(
        self, task_file: str, model: str, *, shots: int | None = None, backend: str | None = None
    ) -> None:
        self._task = load_task(Path(task_file))
        self._shots = len(self._task.examples) if shots is None else shots
        self._teacher = Local(
            store.get(model),
            backend or default_backend(),
            self._task.max_answer_tokens,
            keep_open=True,
        )

    def __call__(self, batch: Batch) -> Lines:
        """Return the labels of the documents in `batch`, in its order.

        Raise DataError for a row that is neither a document nor a trace.
        """
        documents = [read_document(row) for row in read_rows(batch)]
        requests = build_requests(self._task, documents, self._teacher, self._shots)
        answers = {answered.id: answered for answered in self._teacher.answers(requests)}
        labels = [
            make_label(answers[request.id], self._teacher, request.prompt_sha256)
            for request in requests
        ]
        return as_batch(label.line() for label in labels)
