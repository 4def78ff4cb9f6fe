"""Answer documents with a run on every Ray worker: lines of documents in, lines of answers out.

The lines are those of `offapi predict`, but for `document_hash`, which its resuming needs. Left
out: skipping documents that an earlier file answers.
"""

from __future__ import annotations

import orjson

from offapi.constrain import Level
from offapi.on_ray.lines import Batch, Lines, as_batch, read_document, read_rows
from offapi.predict import predictor


class PredictBatches:
    """What `offapi.open` opens, with its arguments, and how its answers are bound.

    Raise what opening it raises.
    """

    def __init__(
        self,
        run_or_model: str,
        *,
        task: str | None = None,
        backend: str | None = None,
        constrain: Level | None = None,
        signals: bool = False,
    ) -> None:
        self._predictor = predictor.open(run_or_model, task, backend)
        self._constrain, self._signals = constrain, signals

    def __call__(self, batch: Batch) -> Lines:
        """Return the answers to the documents in `batch`, in its order.

        Raise DataError for a row that is neither a document nor a trace.
        """
        documents = [read_document(row) for row in read_rows(batch)]
        answers = self._predictor.predict(
            documents, constrain=self._constrain, signals=self._signals
        )
        rows = (answer.as_row() for answer in answers)
        return as_batch(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in rows)
