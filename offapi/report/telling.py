"""Everything a report says, reckoned once, for HTML and Markdown alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from offapi import __version__
from offapi.errors import DataError
from offapi.plan_words import duration
from offapi.report import accuracy, again, cost, curves, facts, roads, samples
from offapi.report.accuracy import Accuracy, Difference, Rates
from offapi.report.again import Command
from offapi.report.charts import Chart
from offapi.report.cost import Cost
from offapi.report.notes import Note, notes
from offapi.report.reading import Answers, Object, Record, document, predictions, read
from offapi.report.roads import Roads
from offapi.report.samples import Samples
from offapi.report.tables import Table, text
from offapi.runs import MANIFEST


@dataclass(frozen=True)
class Figure:
    """One of the few numbers that stand at the top."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Story:
    """The parts of a report in the order they are read; empty ones are left out of the page."""

    title: str
    lede: str
    figures: tuple[Figure, ...]
    notes: tuple[Note, ...]
    roads: Roads | None
    accuracy: Accuracy | None
    differences: tuple[Difference, ...]
    learning: tuple[Chart, ...]
    health: tuple[Chart, ...]
    gamed: Table | None
    cost: Cost | None
    samples: Samples | None
    apart: Table | None
    made: tuple[tuple[str, tuple[Table, ...]], ...]  # by run
    commands: tuple[Command, ...]
    version: str = __version__


def tell(runs: Sequence[Path], *, cost_file: Path | None = None, with_documents: bool = True) -> Story:
    """The report of the first run, beside the others: runs, or predictions files (`.jsonl`).

    Raises RunError or DataError for a path that is neither, and for damaged files.
    """
    compared, runs = _arms(runs)
    records = _named([read(runs[0]), *(read(path) for path in runs[1:] if path.suffix != ".jsonl")])
    others = [path for path in runs[1:] if path.suffix == ".jsonl"]
    first = records[0]
    control = _control(first)
    own = first.answers and first.answers[0].name == first.name
    answers = [*first.answers, *([control] if control else []), *(one.answers[0] for one in records[1:] if one.answers)]
    answers = _unique([*answers, *map(predictions, others)])
    control = next((one for one in answers if control and one.name == control.name), None)
    rates = accuracy.rates(first, answers)
    differences, refused = accuracy.differences(first, answers, control) if own or first.recipe == "demo" else ([], [])
    shown = samples.samples(first, answers, with_documents=with_documents)
    price = cost.read(document(cost_file)) if cost_file else cost.read(first.files.get("cost", {}))
    return Story(
        first.name if len(records) == 1 else " · ".join(one.name for one in records),
        _lede(first),
        tuple(_figures(first, rates, shown)),
        (*notes(first), *_compared(differences), *(Note("info", one) for one in refused)),
        roads.read(compared),
        accuracy.accuracy(rates),
        tuple(differences),
        tuple(curves.learning(records)),
        tuple(curves.health(records)),
        _gamed(first),
        price,
        shown,
        facts.apart(records),
        tuple((one.name, tuple(facts.made(one))) for one in records),
        tuple(again.commands(records, others)),
    )


def _arms(runs: Sequence[Path]) -> tuple[Object, Sequence[Path]]:
    """What compare.json in a comparison's folder says, and the runs of its arms in that folder's place."""
    found = runs[0] / roads.FILE
    if not found.is_file() or (runs[0] / MANIFEST).is_file():
        return {}, runs
    compared = document(found)
    arms = [path for path in roads.arms(compared) if (path / MANIFEST).is_file()]
    if not arms:
        step = "Name the folders of its arms, or run the comparison again."
        raise DataError.at("the runs it compares are not there.", path=found, next_step=step)
    return compared, [*arms, *runs[1:]]


def _lede(record: Record) -> str:
    config = record.config
    model = text(config.get("model", "demo")).rstrip("/").rsplit("/", 1)[-1]
    backend = record.manifest.get("backend")
    how = f" on {text(backend)}" if backend else ""
    seed = f", seed {text(config['seed'])}" if "seed" in config else ""
    return f"Recipe {record.recipe}, {model}{how}, {record.steps:,} steps{seed}."


def _figures(record: Record, rates: Sequence[Rates], shown: Samples | None) -> list[Figure]:
    found = []
    if rates:
        whole = rates[0].fields[accuracy.ALL]
        between = f"{100 * whole.low:.0f} to {100 * whole.high:.0f} % (95%)"
        found.append(Figure("documents all right", f"{100 * whole.mean:.1f} %", between))
        found.append(Figure("fields right", f"{100 * rates[0].mean:.1f} %", f"{rates[0].n} documents"))
    look = samples.best_look(record)
    rewards = [row["reward"] for row in look.rows if isinstance(row.get("reward"), int | float)] if look else []
    if look and rewards:
        found.append(Figure("held-out reward", f"{sum(rewards) / len(rewards):.3f}", f"at step {look.step}"))
    losses = [y for _, y in curves.points(record.metrics, curves.LOSS) if y is not None]
    if losses and not rewards:
        last = losses[-max(1, len(losses) // 20) :]
        found.append(Figure("loss at the end", f"{sum(last) / len(last):.3f}", f"from {losses[0]:.3f}"))
    seconds = facts.took(record)
    found.append(Figure("steps", f"{record.steps:,}", f"in {duration(seconds)}" if seconds else ""))
    return found


def _compared(differences: Sequence[Difference]) -> list[Note]:
    return [Note("info", one.headline) for one in differences]


def _gamed(record: Record) -> Table | None:
    """The held-out documents whose reward rose without their audit."""
    told = record.files.get("hacking", {})
    rows = tuple(map(_sample, (one for one in told.get("samples") or () if isinstance(one, dict))))
    head = ("document", "answer before", "answer after", "reward", "audit")
    return Table("The reward was being gamed", head, rows) if rows else None


def _sample(one: Object) -> tuple[str, ...]:
    changes = (" → ".join(f"{value:.2f}" for value in one.get(name) or ()) for name in ("reward", "audit"))
    return text(one.get("id")), text(one.get("before")), text(one.get("after")), *changes


def _control(record: Record) -> Answers | None:
    found = record.control.answers if record.control else ()
    return replace(found[0], name="control") if found else None


def _named(records: Sequence[Record]) -> list[Record]:
    """With names that tell them apart: folders of the same name are shown with the one they lie in."""
    names = [one.name for one in records]
    return [
        one if names.count(one.name) == 1 else _renamed(one, f"{one.path.parent.name}/{one.name}") for one in records
    ]


def _renamed(record: Record, name: str) -> Record:
    answers = tuple(replace(one, name=name) if one.name == record.name else one for one in record.answers)
    return replace(record, name=name, answers=answers)


def _unique(answers: Sequence[Answers]) -> list[Answers]:
    """Names numbered where they are used twice."""
    seen: dict[str, int] = {}
    found = []
    for one in answers:
        seen[one.name] = times = seen.get(one.name, 0) + 1
        found.append(one if times == 1 else replace(one, name=f"{one.name} ({times})"))
    return found
