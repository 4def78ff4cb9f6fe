"""Measure what constraints do to answers: base and student, each level, documents never learned.

Accuracy: every arm answers all documents. Speed: each answers some of them alone, a few at a time
in turn, so that a busy machine slows all alike. In the arm `source`, fields with a list are
quoted. `register+` is the same list with generated names and the other companies that the documents
print. Left out: sampled answers.

    \b
    python scripts/bench/bound.py task.py val.jsonl held.jsonl --adapter runs/mix/adapter
    python scripts/bench/bound.py task.py val.jsonl --backend mlx --level off --level source
"""

from __future__ import annotations

import random
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import orjson

from offapi.backend import Backend, Sampling, default_backend, load
from offapi.chat.chat import Chat
from offapi.checks.kinds import kind_of
from offapi.cli.output import Output
from offapi.constrain import Constraints
from offapi.constrain.register import read_register
from offapi.data.rows import Row
from offapi.data.traces import Trace
from offapi.engine import Matcher, StartMatcher
from offapi.evaluation import test_set
from offapi.evaluation.accuracy import score_predictions
from offapi.evaluation.predict import make_prompt, predict
from offapi.model_spec import ModelSpec
from offapi.models import store
from offapi.task import Task, load_task
from offapi.task.bind import OneOf, Quote

LEVELS = ("off", "schema", "source", "register", "register+")
COMPANY = re.compile(r"\b(SDN\.?\s*BHD|LTD|INC|GMBH|S/B|ENTERPRISE|TRADING|RESTAURANT)\b", re.I)


@dataclass
class Arm:
    """A model under a constraint, and what it has answered so far."""

    model: str
    level: str
    task: Task
    constraints: Constraints | None
    outputs: list[str] = field(default_factory=list)
    documents: int = 0  # answered alone, against the clock
    tokens: int = 0
    seconds: float = 0.0

    def start(self, row: Row) -> StartMatcher | None:
        """Return what bounds its answer to a document."""
        return None if self.constraints is None else self.constraints.start(text_of(row))


@dataclass(frozen=True)
class Together:
    """What bounds the answers of several arms to one document, one sample each."""

    starts: Sequence[StartMatcher | None]

    def __call__(self, sample: int) -> Matcher | None:
        """Return the matcher of arm `sample`."""
        start = self.starts[sample]
        return None if start is None else start(0)


def text_of(row: Row) -> str:
    """Return the document's text."""
    return row.document if isinstance(row, Trace) else row.text


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.argument("task_file", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--model", default="demo", show_default=True, help="Base model.")
@click.option("--adapter", type=click.Path(path_type=Path), help="Trained student.")
@click.option("--base/--no-base", default=True, help="Whether the base model answers too.")
@click.option("--backend", help="torch or mlx.  [default: the machine's]")
@click.option("--level", "levels", type=click.Choice(LEVELS), multiple=True, default=LEVELS)
@click.option("--shots", default=0, show_default=True, help="Worked examples in the prompt.")
@click.option("--limit", type=int, help="Use only the first N documents of each file.")
@click.option("--at-once", default=10, show_default=True, help="Documents answered in turn.")
@click.option("--timed", default=20, show_default=True, help="Documents that each arm is timed on.")
@click.option("--generated", default=50_000, show_default=True, help="Names added in register+.")
@click.option("--out", type=click.Path(path_type=Path), help="File for the table (JSONL).")
def main(**options: Any) -> None:
    """Answer, score, and print a row for each arm."""
    task = load_task(options["task_file"])
    rows = [row for path in options["data"] for row in test_set.read(path, task, options["limit"])]
    model = store.get(options["model"])
    chat, name = Chat.load(model.path), options["backend"] or default_backend()
    adapters: dict[str, Path | None] = {"base": None} if options["base"] else {}
    if options["adapter"]:
        adapters["student"] = options["adapter"]
    backends = {
        which: load(name, ModelSpec(path=model.path, adapter=adapter, dtype="float32"))
        for which, adapter in adapters.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        tasks = tasks_of(task, rows, options, Path(folder))
        arms = [
            Arm(which, level, tasks[level], bound(tasks[level], chat, level))
            for which in backends
            for level in options["levels"]
        ]
        few = options["at_once"]
        time_arms(arms, backends, chat, rows[: options["timed"]], few, options["shots"])
        for which, backend in backends.items():
            own = [arm for arm in arms if arm.model == which]
            for done in answer(own, backend, chat, rows, few, options["shots"]):
                report(own, rows[:done], name, options["out"])


def bound(task: Task, chat: Chat, level: str) -> Constraints | None:
    """Return the constraint of an arm."""
    return None if level == "off" else Constraints.of(task, chat, level.rstrip("+"))  # type: ignore[arg-type]


def tasks_of(
    task: Task, rows: Sequence[Row], options: Mapping[str, Any], folder: Path
) -> dict[str, Task]:
    """Return the task as each level uses it."""
    lists = {path: one for path, one in task.bind.items() if isinstance(one, OneOf)}
    quoted = replace(task, bind={**task.bind, **{path: Quote() for path in lists}})
    enlarged = {
        path: enlarge(one, rows, options["generated"], folder / f"{i}.txt")
        for i, (path, one) in enumerate(lists.items())
    }
    tasks = dict.fromkeys(LEVELS, task) | {"source": quoted}
    return tasks | {"register+": replace(task, bind={**task.bind, **enlarged})}


def enlarge(one: OneOf, rows: Sequence[Row], count: int, path: Path) -> OneOf:
    """Write the list with made-up names of its own words and the companies that are printed."""
    chance, names = random.Random(0), dict.fromkeys(read_register(one).names)
    words = [word for name in names for word in name.split()]
    lines = [line.strip() for row in rows for line in text_of(row).split("\n")]
    names |= dict.fromkeys(line for line in lines if COMPANY.search(line))
    printed = len(names)
    while len(names) < count + printed:
        names.setdefault(" ".join(chance.choices(words, k=chance.randint(2, 5))))
    path.write_text("\n".join(names), "utf-8")
    return OneOf(path)


def answer(
    arms: Sequence[Arm], backend: Backend, chat: Chat, rows: Sequence[Row], few: int, shots: int
) -> Iterator[int]:
    """Let the arms of one model answer `few` documents, read once for all of them; yield how many.

    Sample i of a document is arm i's answer, which its neighbours do not change.
    """
    for at in range(0, len(rows), few):
        some = rows[at : at + few]
        starts = [Together([arm.start(row) for arm in arms]) for row in some]
        prompts = [make_prompt(chat, arms[0].task, row, shots) for row in some]
        sampling = Sampling(arms[0].task.max_answer_tokens, chat.stop_ids)
        groups = sorted(
            backend.rollout(prompts, len(arms), sampling, starts=starts), key=lambda g: g.prompt
        )
        for group in groups:
            for arm, completion in zip(arms, group.completions, strict=True):
                arm.outputs.append(chat.decode(completion.tokens))
        yield at + len(some)


def time_arms(
    arms: Sequence[Arm],
    backends: Mapping[str, Backend],
    chat: Chat,
    rows: Sequence[Row],
    few: int,
    shots: int,
) -> None:
    """Let every arm answer `few` of `rows` in turn, alone, and count its tokens and seconds."""
    quiet = Output(json=True)
    for backend in backends.values():  # the first call compiles
        predict(backend, chat, arms[0].task, rows[:2], quiet, shots)
    for at in range(0, len(rows), few):
        turn = list(arms)
        random.Random(at).shuffle(turn)
        for arm in turn:
            some = rows[at : at + few]
            got = predict(
                backends[arm.model], chat, arm.task, some, quiet, shots, constraints=arm.constraints
            )
            arm.documents += len(some)
            arm.tokens += got.completion_tokens
            arm.seconds += got.seconds


def report(arms: Sequence[Arm], rows: Sequence[Row], backend: str, out: Path | None) -> None:
    """Print the table, and write it to `out`."""
    lines = []
    for arm in arms:
        scored = score_predictions(arm.task, rows, arm.outputs)
        answers = [arm.task.read_answer(text).value for text in arm.outputs]
        line: dict[str, Any] = {
            "backend": backend,
            "model": arm.model,
            "level": arm.level,
            "documents": len(rows),
            "parses": round(sum(answer is not None for answer in answers) / len(rows), 3),
            **{path: round(share.mean, 3) for path, share in scored.fields.items()},
            "all": round(scored.all_fields.mean, 3),
        }
        if arm.documents:
            line["tokens/s"] = round(arm.tokens / arm.seconds, 1)
            line["documents/s"] = round(arm.documents / arm.seconds, 3)
        for path, match in arm.task.match.items():
            if kind_of(match).name == "list":
                lists = [(answer or {}).get(path) or [] for answer in answers]
                line[f"{path}/document"] = sum(map(len, lists)) / len(rows)
        lines.append(line)
    widths: dict[str, int] = defaultdict(int)
    for line in lines:
        for key, value in line.items():
            widths[key] = max(widths[key], len(key), len(str(value)))
    click.echo("  ".join(key.rjust(widths[key]) for key in widths))
    for line in lines:
        click.echo("  ".join(str(line.get(key, "")).rjust(widths[key]) for key in widths))
    if out:
        out.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))


if __name__ == "__main__":
    main()
