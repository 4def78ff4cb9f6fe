"""The main job in small, real from end to end: a model distilled into a cheaper form of itself.

The teacher is the model with worked examples in its prompt, the student the same model that
learns to do without them (context distillation, arXiv 2209.15189). Left out: endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from offapi.backend import Backend, ModelSpec, load
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
from offapi.models import store
from offapi.progress import Progress
from offapi.report.write import write_page
from offapi.task import Task
from offapi.text.display import duration
from offapi.training import forecast
from offapi.training.job import Job
from offapi.training.manifest import describe_answers, hash_model
from offapi.training.recipe_run import hold_run, load_recipe
from offapi.training.run import Run

RESULT, REPORT = "result.json", "report.html"
ANSWER_TOKENS = 42  # of a typical answer, for the time announced


@dataclass(frozen=True)
class Sizes:
    """How many documents are generated, from which seed, and how the student is trained on them."""

    train: int = 160
    val: int = 20
    test: int = 60
    seed: int = 0
    epochs: float = 1.0
    lr: float = 1e-3
    batch_size: int = 4


@dataclass(frozen=True)
class DemoOutcome:
    """All three, and where everything was written."""

    arms: Mapping[str, Scored]
    run: Path

    def as_dict(self) -> dict[str, Any]:
        """What `offapi demo --json` prints."""
        return {
            **{name: arm.report.as_dict() for name, arm in self.arms.items()},
            "run": str(self.run),
        }


def run_demo(backend_name: str, root: Path, sizes: Sizes, out: Progress) -> DemoOutcome:
    """Everything, in a run folder of its own; a demo that was interrupted there is gone on with."""
    model = stored_model(out)
    manifest = {"demo": asdict(sizes)}
    folder, resume = open_folder(root, f"demo-{backend_name}", manifest)
    with hold_run(folder, manifest, resume=resume):
        if resume:
            out.say(f"Going on with {folder.path}.")
        task = task_file.task
        paths = write_documents(folder, sizes)
        test = documents.read(paths["test"])
        chat = Chat.load(model.path)
        questions = Questions(task, paths["test"], test)
        exam = Exam(folder.path, questions, answers_key(backend_name, model, paths))
        shots = {"base": 0, "teacher": len(task.examples)}
        left = 1 + sum(exam.file(name, count).read() is None for name, count in shots.items())
        base = load(backend_name, ModelSpec(path=model.path))
        out.say(announce(base, chat, task, documents.read(paths["train"]), test, sizes, left))
        arms = {name: exam.sit(base, chat, name, count, out) for name, count in shots.items()}
        base.close()
        distil(backend_name, folder, paths, sizes, out, resume)
        adapter = folder.path / "adapter"
        student = load(backend_name, ModelSpec(path=model.path, adapter=adapter))
        arms["student"] = exam.sit(student, chat, "student", 0, out, adapter=sha256_path(adapter))
        student.close()
        outcome = DemoOutcome(arms, folder.path)
        folder.write(RESULT, orjson.dumps(outcome.as_dict()))
    write_page([outcome.run], outcome.run / REPORT)
    return outcome


def stored_model(out: Progress) -> store.Model:
    """The demo's model, converted and locked at the first call."""
    try:
        return store.get("demo")
    except ModelError:
        out.say("Converting SmolLM2-135M-Instruct to safetensors, once.")
        return store.add("demo")


def open_folder(root: Path, name: str, manifest: Mapping[str, Any]) -> tuple[Run, bool]:
    """The unfinished run of that name to go on with,
    else a new one, numbered from the second on.
    """
    number = 1
    while True:
        path = root / (name if number == 1 else f"{name}-{number}")
        if not path.exists():
            return Run.create(root, path.name, manifest), False
        if not (path / RESULT).exists():
            return Run.open(path), True
        number += 1


def write_documents(folder: Run, sizes: Sizes) -> dict[str, Path]:
    """Generate the three splits, and the task file beside them, into the run folder."""
    counts: Mapping[Split, int] = {"train": sizes.train, "val": sizes.val, "test": sizes.test}
    paths = {"task": folder.write("task.py", Path(task_file.__file__).read_bytes())}
    for split, count in counts.items():
        rows = map(documents.as_row, generate(split, count, sizes.seed))
        lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        paths[split] = folder.write(f"{split}.jsonl", lines)
    return paths


def answers_key(backend_name: str, model: store.Model, paths: Mapping[str, Path]) -> dict[str, Any]:
    """What the answers to the test documents depend on, beside worked examples and adapter."""
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
    """One sentence with the time all of it is expected
    to take here, with `arms` still to be tested.
    """
    speed = forecast.measure(backend)
    own = (
        sum(len(chat.encode(row.text)) for row in train),
        sum(len(chat.encode(row.text)) for row in test),
    )
    asked = len(chat.prompt(task.messages("")))
    read = speed.score * (own[0] + arms * own[1]) + speed.decode * ANSWER_TOKENS * (
        len(train) + arms * len(test)
    )
    learn = (
        speed.train
        * sizes.epochs
        * (own[0] + (asked / sizes.batch_size + ANSWER_TOKENS) * len(train))
    )
    return (
        f"{len(train)} documents to label and learn from, {len(test)} to test on:"
        f" about {duration(read + learn)} on this machine ({backend.name}, {backend.device})."
    )


def distil(
    backend_name: str,
    folder: Run,
    paths: Mapping[str, Path],
    sizes: Sizes,
    out: Progress,
    resume: bool,
) -> None:
    """The distill recipe on the generated training documents; their gold is not looked at."""
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
    )
    job = Job(
        config=config,
        inputs=recipe.prepare(config, out),
        backend_name=backend_name,
        folder=folder,
        progress=out,
        resume=resume,
    )
    recipe.run(job)
