"""A row of the comparison scored on the test set: its
predictions and what an answer costs, kept beside the arm.

Left out: the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

from offapi.backend import ModelSpec, load
from offapi.chat.chat import Chat
from offapi.compare.arm import ARMS
from offapi.compare.config import Keys
from offapi.evaluation import accuracy, test_set
from offapi.evaluation.accuracy import Report, score_predictions
from offapi.evaluation.evaluate import Questions
from offapi.evaluation.predict import predict
from offapi.files import atomic
from offapi.models import store
from offapi.progress import Progress
from offapi.training.manifest import DIGITS, describe_answers, hash_model, name_folder
from offapi.training.run import Run


@dataclass(frozen=True)
class Scored:
    """Accuracy on the test set.

    `cost` of a document: prompt tokens, completion tokens and seconds.
    """

    report: Report
    cost: dict[str, float]
    path: Path


def student(
    folder: Path, adapter: str, keys: Keys, questions: Questions, backend: str, out: Progress
) -> Scored:
    """The student in the run `folder`, asked as it was
    trained, without worked examples; counted in the run.
    """
    found = done(folder, questions)
    if found is None:
        found = _ask(folder, keys, keys.model, folder / adapter, 0, questions, backend, out)
        test_set.count_scoring(Run.open(folder), questions.data, len(questions.rows))
    return found


def model(
    kind: str, name: str, shots: int, keys: Keys, questions: Questions, backend: str, out: Progress
) -> Scored:
    """A model as it is, base or teacher; kept in a folder of its own among the arms."""
    hashes = {"task": test_set.digest(keys.task), "model": hash_model(name)}
    manifest = describe_answers(
        backend,
        hashes,
        shots=shots,
        dtype=keys.dtype,
        quantize=keys.quantize,
        device=keys.device,
    )
    path = (keys.out / ARMS / name_folder(kind, manifest)).absolute()
    if not path.exists():
        Run.create(path.parent, path.name, manifest)
    return done(path, questions) or _ask(path, keys, name, None, shots, questions, backend, out)


def done(folder: Path, questions: Questions) -> Scored | None:
    """What was found before; None where this test set was not scored."""
    answers, cost = _paths(folder, questions)
    if not (answers.is_file() and cost.is_file()):
        return None
    return Scored(Report.of(accuracy.read(answers)), orjson.loads(cost.read_bytes()), answers)


def _ask(
    folder: Path,
    keys: Keys,
    name: str,
    adapter: Path | None,
    shots: int,
    questions: Questions,
    backend: str,
    out: Progress,
) -> Scored:
    """Greedy answers in the numbers the student is trained
    in, written down, their cost last: with it all is there.
    """
    path, (answers, cost) = store.get(name).path, _paths(folder, questions)
    spec = ModelSpec(
        path,
        adapter,
        dtype=keys.dtype,
        device=keys.device,
        quantize=keys.quantize,
        limits=keys.limits,
    )
    loaded = load(backend, spec)
    try:
        found = predict(loaded, Chat.load(path), questions.task, questions.rows, out, shots)
    finally:
        loaded.close()
    report = score_predictions(questions.task, questions.rows, found.outputs)
    atomic.write_file(answers, report.jsonl())
    atomic.write_file(cost, orjson.dumps(found.cost()))
    return Scored(report, found.cost(), answers)


def _paths(folder: Path, questions: Questions) -> tuple[Path, Path]:
    digest = test_set.digest(questions.data)[:DIGITS]
    return folder / f"test-{digest}.jsonl", folder / f"test-{digest}.json"
