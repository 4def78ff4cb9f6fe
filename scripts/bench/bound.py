"""Measure what constraints do to answers: base and student, each level, documents never learned.

Every arm answers the same documents, a few at a time in turn, so that a busy machine slows all
alike. In the arm `source`, fields with a list are quoted. `register+` is the same list with
generated names and the other companies that the documents print. Left out: sampled answers.

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

from offapi.backend import Backend, ModelSpec, default_backend, load
from offapi.chat.chat import Chat
from offapi.checks.kinds import kind_of
from offapi.cli.output import Output
from offapi.constrain import Constraints
from offapi.constrain.register import read_register
from offapi.data.rows import Row
from offapi.evaluation import test_set
from offapi.evaluation.accuracy import score_predictions
from offapi.evaluation.predict import predict
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
    tokens: int = 0
    seconds: float = 0.0


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.argument("task_file", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--model", default="demo", show_default=True, help="Base model.")
@click.option("--adapter", type=click.Path(path_type=Path), help="Trained student.")
@click.option("--base/--no-base", default=True, help="Whether the base model answers too.")
@click.option("--backend", help="torch or mlx.  [default: the machine's]")
@click.option("--level", "levels", type=click.Choice(LEVELS), multiple=True, default=LEVELS)
@click.option("--limit", type=int, help="Use only the first N documents of each file.")
@click.option("--at-once", default=20, show_default=True, help="Documents an arm answers in turn.")
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
        for done in answer(arms, backends, chat, rows, options["at_once"]):
            report(arms, rows[:done], name, options["out"])


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
    texts = [getattr(row, "text", None) or row.document for row in rows]  # type: ignore[union-attr]
    lines = [line.strip() for text in texts for line in text.split("\n")]
    names |= dict.fromkeys(line for line in lines if COMPANY.search(line))
    while len(names) < count + len(read_register(one).names):
        names.setdefault(" ".join(chance.choices(words, k=chance.randint(2, 5))))
    path.write_text("\n".join(names), "utf-8")
    return OneOf(path)


def answer(
    arms: Sequence[Arm], backends: Mapping[str, Backend], chat: Chat, rows: Sequence[Row], few: int
) -> Iterator[int]:
    """Let every arm answer `few` documents in turn; yield how many each has answered."""
    quiet = Output(json=True)
    for backend in backends.values():  # the first call compiles
        predict(backend, chat, arms[0].task, rows[:2], quiet)
    for at in range(0, len(rows), few):
        turn = list(arms)
        random.Random(at).shuffle(turn)
        for arm in turn:
            got = predict(
                backends[arm.model],
                chat,
                arm.task,
                rows[at : at + few],
                quiet,
                constraints=arm.constraints,
            )
            arm.outputs += got.outputs
            arm.tokens += got.completion_tokens
            arm.seconds += got.seconds
        yield min(at + few, len(rows))


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
            "parses": sum(answer is not None for answer in answers) / len(rows),
            **{path: round(share.mean, 3) for path, share in scored.fields.items()},
            "all": round(scored.all_fields.mean, 3),
            "tokens/s": round(arm.tokens / arm.seconds, 1),
            "documents/s": round(len(rows) / arm.seconds, 2),
        }
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
        click.echo("  ".join(str(line[key]).rjust(widths[key]) for key in widths))
    if out:
        out.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))


if __name__ == "__main__":
    main()
