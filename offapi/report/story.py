"""Everything a report says, reckoned once, for HTML and Markdown alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from offapi import __version__
from offapi.report import accuracy, cost, headline, run_facts, samples
from offapi.report.accuracy import Accuracy, Difference, Rates
from offapi.report.commands import Command, comparison_commands, run_commands
from offapi.report.comparison import ComparisonFolder, ComparisonTable, find_comparison, read_table
from offapi.report.cost import CostSection
from offapi.report.headline import Figure
from offapi.report.learning import health_charts, learning_charts
from offapi.report.notes import ReportNote, run_notes
from offapi.report.render.charts import Chart
from offapi.report.render.table import Table, text
from offapi.report.run_files import Answers, Object, Record, read_answers, read_object, read_record
from offapi.report.samples import Samples

COST = "cost.json"


@dataclass(frozen=True, kw_only=True)
class Story:
    """The parts of a report in the order they are read; empty ones are left out of the page."""

    title: str
    lede: str
    figures: tuple[Figure, ...]
    notes: tuple[ReportNote, ...]
    comparison: ComparisonTable | None
    accuracy: Accuracy | None
    differences: tuple[Difference, ...]
    learning: tuple[Chart, ...]
    health: tuple[Chart, ...]
    gamed: Table | None
    cost: CostSection | None
    samples: Samples | None
    apart: Table | None
    made: tuple[tuple[str, tuple[Table, ...]], ...]  # by run
    commands: tuple[Command, ...]
    version: str = __version__


@dataclass(frozen=True)
class Read:
    """What a report is about.

    `answers`: of the system it is about first; `extra`, the last ones, were named beside.
    """

    records: tuple[Record, ...]
    answers: tuple[Answers, ...]
    extra: int
    control: Answers | None = None
    compared: ComparisonFolder | None = None


def make_story(
    runs: Sequence[Path], *, cost_file: Path | None = None, with_documents: bool = True
) -> Story:
    """The report of the first run or comparison, beside
    the others: runs, or predictions files (`.jsonl`).

    Raises RunError or DataError for a path that is neither, and for damaged files.
    """
    compared = find_comparison(runs[0])
    found = _read_comparison(compared, runs[1:]) if compared else _read_runs(runs)
    first, rates = found.records[0], accuracy.accuracy_rates(found.records[0], found.answers)
    differences, refused = _differences(found)
    title, lede, figures = _head(found, rates)
    notes = [*_notes(found), *_compared(differences)]
    notes += [ReportNote("info", one) for one in refused]
    commands = comparison_commands(compared.told, runs) if compared else run_commands(first, runs)
    return Story(
        title=title,
        lede=lede,
        figures=figures,
        notes=tuple(notes),
        comparison=read_table(compared.told) if compared else None,
        accuracy=accuracy.accuracy_chart(rates),
        differences=tuple(differences),
        learning=tuple(learning_charts(found.records)),
        health=tuple(health_charts(found.records)),
        gamed=_first_gamed(found),
        cost=cost.read_cost(_cost(found, cost_file)),
        samples=_samples(found, with_documents),
        apart=run_facts.differing_keys(found.records),
        made=tuple((one.name, tuple(run_facts.fact_tables(one))) for one in found.records),
        commands=tuple(commands),
    )


def _read_runs(runs: Sequence[Path]) -> Read:
    """The first run with whatever it was measured against, and the others."""
    records = _named(
        [read_record(runs[0]), *(read_record(path) for path in runs[1:] if path.suffix != ".jsonl")]
    )
    first, control = records[0], _control(records[0])
    beside = _beside(records[1:], runs[1:])
    answers = _unique([*first.answers, *([control] if control else []), *beside])
    kept = next((one for one in answers if control and one.name == control.name), None)
    return Read(tuple(records), tuple(answers), len(beside), kept)


def _read_comparison(compared: ComparisonFolder, more: Sequence[Path]) -> Read:
    """The arms under the names of their roads, with the
    answers to the test set, and whatever was named beside.
    """
    arms = [_renamed(read_record(path), name) for name, path in compared.arms.items()]
    records = _named([*arms, *(read_record(path) for path in more if path.suffix != ".jsonl")])
    beside = _beside(records[len(arms) :], more)
    answers = _unique([*compared.answers, *beside])
    return Read(tuple(records), tuple(answers), len(beside), compared=compared)


def _beside(records: Sequence[Record], paths: Sequence[Path]) -> list[Answers]:
    files = [read_answers(path) for path in paths if path.suffix == ".jsonl"]
    return [*(one.answers[0] for one in records if one.answers), *files]


def _head(found: Read, rates: Sequence[Rates]) -> tuple[str, str, tuple[Figure, ...]]:
    """Title, sentence and figures; of a comparison those of its best road and of the reference."""
    first, compared = found.records[0], found.compared
    if compared is None:
        title = " · ".join(one.name for one in found.records)
        return (
            title,
            headline.lede(first),
            tuple(headline.figures(first, rates, samples.best_look(first))),
        )
    beside = [one.name for one in found.records[len(compared.arms) :]]
    take = (
        [Figure("the road to take", text(compared.told["take"]))]
        if compared.told.get("take")
        else []
    )
    right = [headline.all_right(one, f"documents all right, {one.name}") for one in rates[:2]]
    return " · ".join([compared.folder.name, *beside]), compared.lede, (*take, *right)


def _notes(found: Read) -> list[ReportNote]:
    """Of a run, or of every arm: what all of them say once, else under the arm's name."""
    if found.compared is None:
        return run_notes(found.records[0])
    told = {one.name: run_notes(one) for one in found.records[: len(found.compared.arms)]}
    same = [
        note for note in next(iter(told.values())) if all(note in each for each in told.values())
    ]
    named = [
        replace(n, text=f"{name}: {n.text}")
        for name, each in told.items()
        for n in each
        if n not in same
    ]
    return [*named, *same]


def _differences(found: Read) -> tuple[list[Difference], list[str]]:
    """Of the first run to the others.

    The roads were judged together; here they are set against what is beside.
    """
    first, answers = found.records[0], found.answers
    if found.compared:
        beside = answers[len(answers) - found.extra :]
        return (
            accuracy.all_differences(first, [*answers[:1], *beside], None) if beside else ([], [])
        )
    own = first.answers and first.answers[0].name == first.name
    return (
        accuracy.all_differences(first, answers, found.control)
        if own or first.recipe == "demo"
        else ([], [])
    )


def _samples(found: Read, with_documents: bool) -> Samples | None:
    if found.compared:
        return samples.comparison_samples(
            found.answers, found.compared.test, with_documents=with_documents
        )
    return samples.run_samples(found.records[0], found.answers, with_documents=with_documents)


def _cost(found: Read, file: Path | None) -> Object:
    """What was named, else what lies beside the run's or the comparison's own files."""
    beside = (found.compared.folder if found.compared else found.records[0].path) / COST
    return read_object(file or beside) if file or beside.is_file() else {}


def _compared(differences: Sequence[Difference]) -> list[ReportNote]:
    return [ReportNote("info", one.headline) for one in differences]


def _first_gamed(found: Read) -> Table | None:
    """The first run that was gamed, or of a comparison the first such arm."""
    records = found.records if found.compared else found.records[:1]
    return next((table for table in map(_gamed, records) if table), None)


def _gamed(record: Record) -> Table | None:
    """The held-out documents whose reward rose without their audit."""
    told = record.files.get("hacking", {})
    rows = tuple(map(_sample, (one for one in told.get("samples") or () if isinstance(one, dict))))
    head = ("document", "answer before", "answer after", "reward", "audit")
    title = "The audit fell" if told.get("rose") is False else "The reward was being gamed"
    return Table(title, head, rows) if rows else None


def _sample(one: Object) -> tuple[str, ...]:
    changes = (
        " → ".join(f"{value:.2f}" for value in one.get(name) or ()) for name in ("reward", "audit")
    )
    return text(one.get("id")), text(one.get("before")), text(one.get("after")), *changes


def _control(record: Record) -> Answers | None:
    found = record.control.answers if record.control else ()
    return replace(found[0], name="control") if found else None


def _named(records: Sequence[Record]) -> list[Record]:
    """With names that tell them apart: folders of
    the same name are shown with the one they lie in.
    """
    names = [one.name for one in records]
    return [
        one if names.count(one.name) == 1 else _renamed(one, f"{one.path.parent.name}/{one.name}")
        for one in records
    ]


def _renamed(record: Record, name: str) -> Record:
    answers = tuple(
        replace(one, name=name) if one.name == record.name else one for one in record.answers
    )
    return replace(record, name=name, answers=answers)


def _unique(answers: Sequence[Answers]) -> list[Answers]:
    """Names numbered where they are used twice."""
    seen: dict[str, int] = {}
    found = []
    for one in answers:
        seen[one.name] = times = seen.get(one.name, 0) + 1
        found.append(one if times == 1 else replace(one, name=f"{one.name} ({times})"))
    return found
