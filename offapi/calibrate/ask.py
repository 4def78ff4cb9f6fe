"""The run's answers to reviewed documents, with their signals: asked, or read from a file.

Answers are kept in the run's folder, so that an interrupted calibration resumes, and one with
another error asks nothing again. Left out: answers without signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from offapi.calibrate.fit import ReviewedAnswer
from offapi.checks.gold import compare_fields
from offapi.constrain import LEVELS, Level
from offapi.data.documents import Document, fields_of
from offapi.errors import ConfigError, DataError
from offapi.files import jsonl
from offapi.predict.answers_log import OF, AnswersLog, text_hash
from offapi.predict.files import PredictFiles, answers_key
from offapi.predict.predict_documents import predict_documents
from offapi.predict.prediction import DocumentAnswer
from offapi.predict.predictor import AskedHow, Predictor
from offapi.progress import Progress
from offapi.task import Task
from offapi.text.display import plural

FILE = "calibration-answers.jsonl"
PREDICT = "Write it with `offapi predict RUN REVIEWED.jsonl --signals --out FILE`."


def ask(
    predictor: Predictor, level: Level, documents: Sequence[Document], out: Path, progress: Progress
) -> list[DocumentAnswer]:
    """Return the answers to `documents`, in their order; those in `out` are not asked again.

    Raise what loading and asking raise; all answers so far are then kept in `out`.
    """
    asked = AskedHow(level, None)
    key = answers_key(predictor, asked, PredictFiles((), out, signals=True))
    with AnswersLog(out, key) as log:
        todo = [document for document in documents if document not in log]
        if todo:
            progress.say(f"{plural(len(todo), 'document')} to answer.")
            asking, by_id = predictor.asking(asked, signals=True), {each.id: each for each in todo}
            with progress.progress("answering", len(todo)) as advance:
                answers = predict_documents(predictor.backend, asking, todo)
                for done, answer in enumerate(answers, start=1):
                    log.append(answer, by_id[answer.id])
                    advance(done)
        log.finish(documents)
        return list(log.answers(documents))


def read_level(path: Path, predictor: Predictor) -> Level:
    """Return how the answers in `path` are bound.

    Raise ConfigError unless `predictor`'s model and task gave them, with signals.
    """
    key_file = path.with_name(f"{path.name}.key.json")
    try:
        key = orjson.loads(key_file.read_bytes())
        hashes, level, with_signals = key["sha256"], key["constrain"], key["signals"]
    except (OSError, ValueError, KeyError, TypeError):
        what = f"{key_file.name}, which says what gave the answers, is missing."
        raise ConfigError(what, where=str(path), next_step=PREDICT) from None
    wanted = answers_key(predictor, AskedHow(level, None), PredictFiles((), path))["sha256"]
    other = [name for name, sha256 in wanted.items() if hashes.get(name) != sha256]
    if other or not with_signals:
        what = f"the answers come from another {other[0]}." if other else "there are no signals."
        raise ConfigError(what, where=str(path), next_step=PREDICT)
    return next(each for each in LEVELS if each == level)


def read_answers(path: Path, documents: Sequence[Document]) -> list[DocumentAnswer]:
    """Return the answers to `documents` in a file, in their order.

    Raise DataError for a document that has none there, or whose text was another one.
    """
    rows = {str(row.value.get("id")): row for row in jsonl.read(path)}
    answers = []
    for document in documents:
        row = rows.get(document.id)
        if row is None or row.value.get(OF) != text_hash(document):
            what = f"document {document.id!r} has no answer here, or its text was another one."
            raise DataError(what, where=str(path), next_step=PREDICT)
        answers.append(_answer(row))
    return answers


def compare(
    task: Task, documents: Sequence[Document], answers: Sequence[DocumentAnswer]
) -> list[ReviewedAnswer]:
    """Compare answers with gold, by the kinds of the task's fields.

    An answer that could not be read is left out: it is never accepted.
    """
    pairs = zip(documents, answers, strict=True)
    return [
        _compared(task, document, answer)
        for document, answer in pairs
        if answer.error is None and isinstance(answer.answer, Mapping)
    ]


def _compared(task: Task, document: Document, answer: DocumentAnswer) -> ReviewedAnswer:
    signals = {}
    for name in task.match:
        known = answer.fields[name].signals if name in answer.fields else None
        if known is None:
            what = f"the answer has no signals of {name!r}."
            raise DataError(what, where=f"document {document.id!r}", next_step=PREDICT)
        signals[name] = known
    value: Any = answer.answer
    return ReviewedAnswer(
        document.id, signals, compare_fields(value, fields_of(document.gold), task.match)
    )


def _answer(row: jsonl.JsonRow) -> DocumentAnswer:
    try:
        return DocumentAnswer.of_row(row.value)
    except (KeyError, TypeError, ValueError):
        raise row.error("not an answer of `offapi predict`.", "fields", PREDICT) from None
