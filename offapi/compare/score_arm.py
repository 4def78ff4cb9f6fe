"""Score a row of the comparison on the test set: its predictions and what an answer costs.

Both are stored in the arm's folder. Left out: the training.
"""

from __future__ import annotations

from pathlib import Path

from offapi.chat.chat import Chat
from offapi.chat.template_options import Options, pin_date
from offapi.compare.arm import ARMS
from offapi.compare.config import Keys
from offapi.evaluation import test_set
from offapi.evaluation.evaluate import AnswersFile, Questions, Scored, ask_model
from offapi.files.hashing import sha256_path
from offapi.model_spec import ModelSpec
from offapi.models import store
from offapi.progress import Progress
from offapi.training.manifest import DIGITS, describe_answers, hash_model, name_folder
from offapi.training.prompt_settings import DAY, day_of, options_of
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
        run = Run.open(folder)
        scored = _ask(
            answers_file,
            keys,
            keys.model,
            questions,
            backend,
            progress,
            told=options_of(run),
            adapter=path,
        )
        test_set.count_scoring(run, questions.data, len(questions.rows))
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
    told = {"template": keys.template} if keys.template else {}
    manifest = describe_answers(
        backend,
        hashes,
        **told,
        shots=shots,
        dtype=keys.dtype,
        quantize=keys.quantize,
        device=keys.device,
    )
    path = (keys.out / ARMS / name_folder(kind, manifest)).absolute()
    if not path.exists():
        Run.create(path.parent, path.name, {**manifest, DAY: day_of({})})
    options = pin_date(keys.template, day_of(Run.open(path).manifest))
    answers_file = _answers_file(path, questions)
    return answers_file.read() or _ask(
        answers_file, keys, name, questions, backend, progress, told=options, shots=shots
    )


def _ask(
    answers_file: AnswersFile,
    keys: Keys,
    model: str,
    questions: Questions,
    backend: str,
    progress: Progress,
    *,
    told: Options,
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
    chat = Chat.load(path, recorded=told)
    answers = ask_model(backend, spec, chat, questions, progress, shots=shots)
    return answers_file.write(questions, answers)


def _answers_file(folder: Path, questions: Questions) -> AnswersFile:
    """Return the file of a test set's answers: the folder is the model's, the name the test's."""
    return AnswersFile(folder / f"test-{sha256_path(questions.data)[:DIGITS]}.jsonl")
