"""The content of a report, computed once for HTML and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from offapi import __version__
from offapi.report import accuracy, cost, headline, run_facts, samples
from offapi.report.accuracy import Accuracy, Difference, Rates
from offapi.report.commands import Command, comparison_commands, run_commands
from offapi.report.comparison import ComparisonFolder, ComparisonTable, find_comparison, read_table
from offapi.report.confidence import ConfidenceSection, confidence_section
from offapi.report.cost import CostSection
from offapi.report.episodes import EpisodeSection, episode_section
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
    """The parts of a report in reading order; empty ones are left out of the page."""

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
    confidence: ConfidenceSection | None
    cost: CostSection | None
    samples: Samples | None
    episodes: EpisodeSection | None
    differing: Table | None
    details: tuple[tuple[str, tuple[Table, ...]], ...]  # by run
    commands: tuple[Command, ...]
    version: str = __version__


@dataclass(frozen=True)
class Read:
    """What a report is about.

    The answers of its main system come first; the last `extra` are from other named files.
    """

    records: tuple[Record, ...]
    answers: tuple[Answers, ...]
    extra: int
    control: Answers | None = None
    compared: ComparisonFolder | None = None


def make_story(
    runs: Sequence[Path], *, cost_file: Path | None = None, with_documents: bool = True
) -> Story:
    """Return the report of the first run or comparison, compared with the others.

    The others are runs, or predictions files (`.jsonl`). Raise RunError or DataError for a path
    that is neither, and for damaged files.
    """
    compared = find_comparison(runs[0])
    read = _read_comparison(compared, runs[1:]) if compared else _read_runs(runs)
    first, rates = read.records[0], accuracy.accuracy_rates(read.records[0], read.answers)
    differences, refused = _differences(read)
    title, lede, figures = _head(read, rates)
    notes = _notes(read)
    notes += [ReportNote("info", difference.headline) for difference in differences]
    notes += [ReportNote("info", reason) for reason in refused]
    commands = comparison_commands(compared.result, runs) if compared else run_commands(first, runs)
    return Story(
        title=title,
        lede=lede,
        figures=figures,
        notes=tuple(notes),
        comparison=read_table(compared.result) if compared else None,
        accuracy=accuracy.accuracy_chart(rates),
        differences=tuple(differences),
        learning=tuple(learning_charts(read.records)),
        health=tuple(health_charts(read.records)),
        gamed=_first_gamed(read),
        confidence=None if compared else confidence_section(first),
        cost=cost.read_cost(_cost(read, cost_file)),
        samples=_samples(read, with_documents),
        episodes=episode_section(
            None if compared else first, read.answers, with_documents=with_documents
        ),
        differing=run_facts.differing_keys(read.records),
        details=tuple((run.name, tuple(run_facts.fact_tables(run))) for run in read.records),
        commands=tuple(commands),
    )


def _read_runs(runs: Sequence[Path]) -> Read:
    """Read the first run with everything it was compared with, and the others."""
    folders = [runs[0], *(path for path in runs[1:] if path.suffix != ".jsonl")]
    records = _named([read_record(path) for path in folders])
    first, control = records[0], _control(records[0])
    extra = _extra_answers(records[1:], runs[1:])
    own = [*first.answers, control] if control else first.answers
    answers = _unique([*own, *extra])
    kept = next((system for system in answers if control and system.name == control.name), None)
    return Read(tuple(records), tuple(answers), len(extra), kept)


def _read_comparison(compared: ComparisonFolder, more: Sequence[Path]) -> Read:
    """Read the arms, named by their recipes, the answers to the test set, and other named files."""
    arms = [_renamed(read_record(path), name) for name, path in compared.arms.items()]
    records = _named([*arms, *(read_record(path) for path in more if path.suffix != ".jsonl")])
    extra = _extra_answers(records[len(arms) :], more)
    answers = _unique([*compared.answers, *extra])
    return Read(tuple(records), tuple(answers), len(extra), compared=compared)


def _extra_answers(records: Sequence[Record], paths: Sequence[Path]) -> list[Answers]:
    files = [read_answers(path) for path in paths if path.suffix == ".jsonl"]
    return [*(_first_answers(record) for record in records if record.answers), *files]


def _first_answers(record: Record) -> Answers:
    """Return a run's main answers, under a name that says whose they are."""
    first = record.answers[0]
    own = first.name == record.name
    return first if own else replace(first, name=f"{record.name}, {first.name}")


def _head(read: Read, rates: Sequence[Rates]) -> tuple[str, str, tuple[Figure, ...]]:
    """Return title, sentence and figures; of a comparison, the best arm's and the reference's."""
    first, compared = read.records[0], read.compared
    if compared is None:
        title = " · ".join(record.name for record in read.records)
        figures = headline.figures(first, rates, samples.best_look(first))
        if first.recipe == "demo" and first.answers:
            figures = [*headline.tested_figures(rates), *figures[2:]]
        return title, headline.lede(first), tuple(figures)
    title = " · ".join(
        [compared.folder.name, *(record.name for record in read.records[len(compared.arms) :])]
    )
    figures = headline.tested_figures(rates)
    if compared.result.get("take"):
        figures.insert(0, Figure("recommended", text(compared.result["take"])))
    return title, compared.lede, tuple(figures)


def _notes(read: Read) -> list[ReportNote]:
    """Return the notes of a run, or of every arm: shared ones once, others with the arm's name."""
    if read.compared is None:
        return run_notes(read.records[0])
    notes = {arm.name: run_notes(arm) for arm in read.records[: len(read.compared.arms)]}
    shared = next(iter(notes.values()))
    for each in notes.values():
        shared = [note for note in shared if note in each]
    named = [
        replace(note, text=f"{name}: {note.text}")
        for name, each in notes.items()
        for note in each
        if note not in shared
    ]
    return [*named, *shared]


def _differences(read: Read) -> tuple[list[Difference], list[str]]:
    """Compare the first run with the others.

    The comparison has ranked its arms; the best one is compared with the other named files.
    """
    first, answers = read.records[0], read.answers
    if read.compared:
        extra = answers[len(answers) - read.extra :]
        if not extra:
            return [], []
        return accuracy.all_differences(first, [*answers[:1], *extra], None)
    own = first.answers and first.answers[0].name == first.name
    if not own and first.recipe != "demo":
        return [], []
    return accuracy.all_differences(first, answers, read.control)


def _samples(read: Read, with_documents: bool) -> Samples | None:
    if read.compared:
        return samples.comparison_samples(
            read.answers, read.compared.test, with_documents=with_documents
        )
    return samples.run_samples(read.records[0], read.answers, with_documents=with_documents)


def _cost(read: Read, cost_file: Path | None) -> Object:
    """Read the named cost file, or the one in the folder of the run or comparison."""
    own_file = (read.compared.folder if read.compared else read.records[0].path) / COST
    return read_object(cost_file or own_file) if cost_file or own_file.is_file() else {}


def _first_gamed(read: Read) -> Table | None:
    """Return the table of the first run, or of a comparison's first arm, that was gamed."""
    records = read.records if read.compared else read.records[:1]
    return next((table for table in map(_gamed, records) if table), None)


def _gamed(record: Record) -> Table | None:
    """Return the held-out documents whose reward rose without their audit."""
    hacking = record.files.get("hacking", {})
    found = [sample for sample in hacking.get("samples") or () if isinstance(sample, dict)]
    rows = tuple(map(_sample, found))
    head = ("document", "answer before", "answer after", "reward", "audit")
    title = "The audit fell" if hacking.get("rose") is False else "The reward was being gamed"
    return Table(title, head, rows) if rows else None


def _sample(sample: Object) -> tuple[str, ...]:
    reward, audit = _joined(sample.get("reward")), _joined(sample.get("audit"))
    before, after = text(sample.get("before")), text(sample.get("after"))
    return text(sample.get("id")), before, after, reward, audit


def _joined(values: Iterable[float] | None) -> str:
    return " → ".join(f"{value:.2f}" for value in values or ())


def _control(record: Record) -> Answers | None:
    answers = record.control.answers if record.control else ()
    return replace(answers[0], name="control") if answers else None


def _named(records: Sequence[Record]) -> list[Record]:
    """Make the names unique: folders of the same name are shown with their parent folder."""
    names = [record.name for record in records]
    return [
        record
        if names.count(record.name) == 1
        else _renamed(record, f"{record.path.parent.name}/{record.name}")
        for record in records
    ]


def _renamed(record: Record, name: str) -> Record:
    answers = tuple(
        replace(one, name=name) if one.name == record.name else one for one in record.answers
    )
    return replace(record, name=name, answers=answers)


def _unique(answers: Sequence[Answers]) -> list[Answers]:
    """Number the names that are used twice."""
    seen: dict[str, int] = {}
    unique = []
    for system in answers:
        name = system.name
        seen[name] = times = seen.get(name, 0) + 1
        unique.append(system if times == 1 else replace(system, name=f"{name} ({times})"))
    return unique
