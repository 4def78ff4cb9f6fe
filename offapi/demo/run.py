"""The demo: the whole pipeline on generated invoices, with a model as its own teacher.

The teacher is the model with worked examples in its prompt. The student is the same model, which
learns to do without them (context distillation, arXiv 2209.15189). Left out: endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from offapi.backend import Backend, load
from offapi.chat.chat import Chat
from offapi.data import documents
from offapi.data.documents import Document
from offapi.demo import task as task_file
from offapi.demo.answers import Exam
from offapi.demo.facts import Split
from offapi.demo.generate import generate
from offapi.errors import ModelError
from offapi.evaluation.evaluate import Questions, Scored
from offapi.files.hashing import sha256_path
from offapi.model_spec import ModelSpec
from offapi.models import store
from offapi.progress import LOADING, Progress
from offapi.report.write import write_page
from offapi.task import Task
from offapi.text.display import duration, plural
from offapi.training import forecast
from offapi.training.job import Job
from offapi.training.manifest import describe_answers, hash_model
from offapi.training.recipe_run import hold_run, load_recipe
from offapi.training.run import Run

RESULT, REPORT = "result.json", "report.html"
ANSWER_TOKENS = 42  # of a typical answer, for the estimate of the time


@dataclass(frozen=True)
class Sizes:
    """The number of generated documents, their seed, and how the student is trained on them."""

    train: int = 160
    val: int = 20
    test: int = 60
    seed: int = 0
    epochs: float = 1.0
    lr: float = 1e-3
    batch_size: int = 4


@dataclass(frozen=True)
class DemoOutcome:
    """The scored answers of the three arms, and the run folder."""

    arms: Mapping[str, Scored]
    run: Path

    def as_dict(self) -> dict[str, Any]:
        """Return the object that `offapi demo --json` prints."""
        return {
            **{name: arm.report.as_dict() for name, arm in self.arms.items()},
            "run": str(self.run),
        }


def run_demo(backend_name: str, root: Path, sizes: Sizes, progress: Progress) -> DemoOutcome:
    """Run the demo in its own run folder, and resume a demo that was interrupted there."""
    model = stored_model(progress)
    manifest = {"demo": asdict(sizes)}
    folder, resume = open_folder(root, f"demo-{backend_name}", manifest)
    with hold_run(folder, manifest, resume=resume):
        if resume:
            progress.say(f"Resuming {folder.path}.")
        task = task_file.task
        paths = write_documents(folder, sizes)
        test = documents.read(paths["test"])
        chat = Chat.load(model.path)
        questions = Questions(task, paths["test"], test)
        exam = Exam(folder.path, questions, answers_key(backend_name, model, paths))
        shots = {"base": 0, "teacher": len(task.examples)}
        left = 1 + sum(exam.file(name, count).read() is None for name, count in shots.items())
        progress.say(LOADING)
        base = load(backend_name, ModelSpec(path=model.path))
        progress.say(announce(base, chat, task, documents.read(paths["train"]), test, sizes, left))
        arms = {name: exam.sit(base, chat, name, count, progress) for name, count in shots.items()}
        base.close()
        distil(backend_name, folder, paths, sizes, progress, resume)
        adapter = folder.path / "adapter"
        student = load(backend_name, ModelSpec(path=model.path, adapter=adapter))
        arms["student"] = exam.sit(
            student, chat, "student", 0, progress, adapter=sha256_path(adapter)
        )
        student.close()
        outcome = DemoOutcome(arms, folder.path)
        folder.write(RESULT, orjson.dumps(outcome.as_dict()))
    write_page([outcome.run], outcome.run / REPORT)
    return outcome


def stored_model(progress: Progress) -> store.Model:
    """Return the demo's model; convert and add it at the first call."""
    try:
        return store.get("demo")
    except ModelError:
        progress.say("Converting SmolLM2-135M-Instruct to safetensors. This is done only once.")
        return store.add("demo")


def open_folder(root: Path, name: str, manifest: Mapping[str, Any]) -> tuple[Run, bool]:
    """Return the unfinished run of that name, or else a new one; and whether it is resumed."""
    number = 1
    while True:
        path = root / (name if number == 1 else f"{name}-{number}")
        if not path.exists():
            return Run.create(root, path.name, manifest), False
        if not (path / RESULT).exists():
            return Run.open(path), True
        number += 1


def write_documents(folder: Run, sizes: Sizes) -> dict[str, Path]:
    """Write the generated splits and the task file into the run folder."""
    counts: Mapping[Split, int] = {"train": sizes.train, "val": sizes.val, "test": sizes.test}
    paths = {"task": folder.write("task.py", Path(task_file.__file__).read_bytes())}
    for split, count in counts.items():
        rows = map(documents.as_row, generate(split, count, sizes.seed))
        lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        paths[split] = folder.write(f"{split}.jsonl", lines)
    return paths


def answers_key(backend_name: str, model: store.Model, paths: Mapping[str, Path]) -> dict[str, Any]:
    """Return what the test answers depend on, besides worked examples and adapter."""
    hashes = {"model": hash_model(model.path)}
    hashes |= {name: sha256_path(paths[name]) for name in ("task", "test")}
    return describe_answers(backend_name, hashes)


def announce(
    backend: Backend,
    chat: Chat,
    task: Task,
    train: list[Document],
    test: list[Document],
    sizes: Sizes,
    arms: int,
) -> str:
    """Write the expected time of the whole demo here, with `arms` still to be tested."""
    speed = forecast.measure(backend)
    train_tokens = sum(len(chat.encode(row.text)) for row in train)
    test_tokens = sum(len(chat.encode(row.text)) for row in test)
    prompt_tokens = len(chat.prompt(task.messages("")))
    read = speed.score * (train_tokens + arms * test_tokens)
    write = speed.decode * ANSWER_TOKENS * (len(train) + arms * len(test))
    learned = train_tokens + (prompt_tokens / sizes.batch_size + ANSWER_TOKENS) * len(train)
    learn = speed.train * sizes.epochs * learned
    return (
        f"{plural(len(train), 'document')} to label and learn from, {len(test)} to test on:"
        f" about {duration(read + write + learn)} on this machine ({backend.name},"
        f" {backend.device})."
    )


def distil(
    backend_name: str,
    folder: Run,
    paths: Mapping[str, Path],
    sizes: Sizes,
    progress: Progress,
    resume: bool,
) -> None:
    """Run the distill recipe on the generated training documents, without their gold."""
    recipe = load_recipe("distill")
    config = recipe.Config(
        task=paths["task"],
        data=paths["train"],
        val=paths["val"],
        teacher="local:demo",
        epochs=sizes.epochs,
        lr=sizes.lr,
        batch_size=sizes.batch_size,
        seed=sizes.seed,
        dtype="float32",  # as the base and the teacher, and the published figures
    )
    job = Job(
        config=config,
        inputs=recipe.prepare(config, progress),
        backend_name=backend_name,
        folder=folder,
        progress=progress,
        resume=resume,
    )
    recipe.run(job)
