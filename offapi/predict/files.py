"""Documents in files to answers in a file: asked once, kept as they come, in order at the end.

Left out: printing (`offapi.cli.predict`), and what is asked (`predict_documents`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offapi.backend import resolve_dtype
from offapi.confidence.promise import FILE as PROMISE
from offapi.data.documents import Document
from offapi.data.rows import read_documents
from offapi.errors import DataError
from offapi.files import jsonl
from offapi.files.hashing import sha256_file
from offapi.predict.answer_fields import answer_fields
from offapi.predict.answers_log import AnswersLog
from offapi.predict.outlook import say_outlook
from offapi.predict.predict_documents import predict_documents
from offapi.predict.predictor import AskedHow, Predictor
from offapi.predict.shard import Shard
from offapi.predict.table import write_table
from offapi.predict.totals import PredictTotals, Tally
from offapi.progress import Progress
from offapi.task.bind import OneOf
from offapi.text.display import plural
from offapi.training.manifest import describe_answers

RESUME = "All answers so far are in {}; run the same command again to resume."


@dataclass(frozen=True)
class PredictFiles:
    """Which documents are answered, and where the answers go."""

    paths: Sequence[Path]
    out: Path
    table: Path | None = None  # CSV
    shard: Shard = Shard()
    limit: int | None = None
    candidates: int = 1
    signals: bool = False


def read_inputs(paths: Sequence[Path]) -> list[Document]:
    """Return the documents of all files and folders, in order.

    Raise DataError, with file and line, for an id that occurs twice, and what reading raises.
    """
    homes: dict[str, Path] = {}
    documents: list[Document] = []
    for path in paths:
        read = read_documents(path)
        for document in read:
            if (before := homes.get(document.id)) is not None:
                what = f"id {document.id!r} was already used in {_place(before, document.id)}."
                step = "Give every document its own id, over all files."
                raise DataError(what, where=_place(path, document.id), next_step=step)
        homes |= {document.id: path for document in read}
        documents += read
    return documents


def predict_files(
    predictor: Predictor, asked: AskedHow, files: PredictFiles, progress: Progress
) -> PredictTotals:
    """Answer the documents that have no answer yet, and write the finished file and the table.

    Raise what reading, loading and writing raise; all answers so far are then kept.
    """
    documents = files.shard.take(read_inputs(files.paths)[: files.limit])
    out = files.shard.out(files.out)
    with AnswersLog(out, answers_key(predictor, asked, files)) as log:
        todo = [document for document in documents if document not in log]
        kept = len(documents) - len(todo)
        said = f" ({kept:,} answered before)" if kept else ""
        progress.say(f"{plural(len(documents), 'document')}, {len(todo):,} to answer{said}.")
        tally = Tally()
        if todo:
            _ask(predictor, asked, files, todo, log, tally, progress)
        others = log.finish(documents)
        if others:
            count = plural(others, "earlier answer, to a document", "earlier answers, to documents")
            progress.say(f"{out} also keeps {count} not named now.")
        names = answer_fields(predictor.task) if predictor.task else ()
        if files.table is not None:
            write_table(files.table, names, log.answers(documents))
        return PredictTotals.of(log.answers(documents), names, tally, out, predictor.answering)


def answers_key(predictor: Predictor, asked: AskedHow, files: PredictFiles) -> Mapping[str, Any]:
    """Return what the answers depend on, besides their documents."""
    facts = predictor.answering.facts
    name = predictor.backend_name
    hashes = {"model": facts["base"]["sha256"]}
    if facts["adapter"]:
        hashes["adapter"] = facts["adapter"]["sha256"]
    if predictor.task_file is not None:
        hashes["task"] = sha256_file(predictor.task_file)
    for field, bound in predictor.task.bind.items() if predictor.task else ():
        if isinstance(bound, OneOf):
            hashes[f"list of {field}"] = sha256_file(bound.path)
    if asked.promise is not None and predictor.answering.run is not None:
        hashes["calibration"] = sha256_file(predictor.answering.run.path / PROMISE)
    return describe_answers(
        name,
        hashes,
        dtype=resolve_dtype(predictor.dtype, name),
        constrain=asked.level,
        candidates=files.candidates,
        signals=files.signals,
        **({"template": dict(told)} if (told := predictor.template) else {}),
        **({"quantize": bits} if (bits := predictor.answering.quantize) else {}),
    )


def _ask(
    predictor: Predictor,
    asked: AskedHow,
    files: PredictFiles,
    todo: Sequence[Document],
    log: AnswersLog,
    tally: Tally,
    progress: Progress,
) -> None:
    asking = predictor.asking(asked, files.candidates, signals=files.signals)
    say_outlook(predictor, asking, todo, progress)
    started = time.perf_counter()
    by_id = {document.id: document for document in todo}
    with progress.progress("answering", len(todo)) as advance:
        try:
            for answer in predict_documents(predictor.backend, asking, todo):
                log.append(answer, by_id[answer.id])
                tally.add(answer, time.perf_counter() - started)
                advance(tally.asked, tally.note())
        except KeyboardInterrupt:
            raise KeyboardInterrupt(RESUME.format(log.part)) from None


def _place(path: Path, id: str) -> str:
    return f"{path / id}" if path.is_dir() else jsonl.place_of(path, id)
