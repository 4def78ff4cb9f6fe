"""Score a row of the comparison on the test set: its predictions and what an answer costs.

Both are stored in the arm's folder. Left out: the training.
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
    """Score the student in the run `folder`, and count the scoring in the run.

    It is prompted as it was trained: without worked examples.
    """
    answers_file = _answers_file(folder, questions)
    scored = answers_file.read()
    if scored is None:
        path = folder / adapter
        scored = _ask(answers_file, keys, keys.model, questions, backend, progress, adapter=path)
        test_set.count_scoring(Run.open(folder), questions.data, len(questions.rows))
    return scored


def score_model(
    kind: str,
    name: str,
    shots: int,
    keys: Keys,
    questions: Questions,
    backend: str,
    progress: Progress,
) -> Scored:
    """Score an untrained model, base or teacher; its answers get a folder of their own."""
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
    answers_file = _answers_file(path, questions)
    return answers_file.read() or _ask(
        answers_file, keys, name, questions, backend, progress, shots=shots
    )


def _ask(
    answers_file: AnswersFile,
    keys: Keys,
    model: str,
    questions: Questions,
    backend: str,
    progress: Progress,
    *,
    adapter: Path | None = None,
    shots: int = 0,
) -> Scored:
    """Ask for greedy answers, in the number format the student is trained in."""
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
    return answers_file.write(questions, answers)


def _answers_file(folder: Path, questions: Questions) -> AnswersFile:
    """Return the file of a test set's answers: the folder is the model's, the name the test's."""
    return AnswersFile(folder / f"test-{sha256_path(questions.data)[:DIGITS]}.jsonl")
