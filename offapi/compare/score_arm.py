"""A row of the comparison scored on the test set: its
predictions and what an answer costs, kept beside the arm.

Left out: the training.
"""

from __future__ import annotations

from pathlib import Path

from offapi.backend import ModelSpec
from offapi.chat.chat import Chat
from offapi.compare.arm import ARMS
from offapi.compare.config import Keys
from offapi.evaluation import test_set
from offapi.evaluation.evaluate import AnswersFile, Questions, Scored, ask_model
from offapi.files.hashing import sha256_path
from offapi.models import store
from offapi.progress import Progress
from offapi.training.manifest import DIGITS, describe_answers, hash_model, name_folder
from offapi.training.run import Run


def score_student(
    folder: Path, adapter: str, keys: Keys, questions: Questions, backend: str, progress: Progress
) -> Scored:
    """The student in the run `folder`, asked as it was
    trained, without worked examples; counted in the run.
    """
    file = _answers_file(folder, questions)
    found = file.read()
    if found is None:
        path = folder / adapter
        found = _ask(file, keys, keys.model, questions, backend, progress, adapter=path)
        test_set.count_scoring(Run.open(folder), questions.data, len(questions.rows))
    return found


def score_model(
    kind: str,
    name: str,
    shots: int,
    keys: Keys,
    questions: Questions,
    backend: str,
    progress: Progress,
) -> Scored:
    """A model as it is, base or teacher; kept in a folder of its own among the arms."""
    hashes = {"task": sha256_path(keys.task), "model": hash_model(name)}
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
    file = _answers_file(path, questions)
    return file.read() or _ask(file, keys, name, questions, backend, progress, shots=shots)


def _ask(
    file: AnswersFile,
    keys: Keys,
    model: str,
    questions: Questions,
    backend: str,
    progress: Progress,
    *,
    adapter: Path | None = None,
    shots: int = 0,
) -> Scored:
    """Greedy answers in the numbers the student is trained in."""
    path = store.get(model).path
    spec = ModelSpec(
        path,
        adapter,
        dtype=keys.dtype,
        device=keys.device,
        quantize=keys.quantize,
        limits=keys.limits,
    )
    answers = ask_model(backend, spec, Chat.load(path), questions, progress, shots=shots)
    return file.write(questions, answers)


def _answers_file(folder: Path, questions: Questions) -> AnswersFile:
    """The folder's name says what the answers depend on, the file's which test set they answer."""
    return AnswersFile(folder / f"test-{sha256_path(questions.data)[:DIGITS]}.jsonl")
