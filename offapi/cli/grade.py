"""`offapi grade`: score traces with the task's checks, and keep the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offapi.cli.output import Output, options
from offapi.errors import ConfigError, DataError, nearest
from offapi.text.display import plural

if TYPE_CHECKING:
    from offapi.grading.file.grade_file import Graded
    from offapi.grading.file.inputs import GradingInputs
    from offapi.grading.file.row_reader import Lines
    from offapi.grading.keep import Keep
    from offapi.grading.report import GradingReport, Sieve
    from offapi.grading.truth import Truth

FILE = click.Path(path_type=Path)
SEED = 0
PAIRS_SHOWN = 10
LOOKED_AT = 100  # rows, for the fields of the answers
DECONTAMINATION = "decontamination.jsonl"


@click.command(short_help="Score traces with the task's checks and keep the best.")
@click.option(
    "--task",
    "task_file",
    type=FILE,
    required=True,
    help="Task file (Python), whose checks score the answers.",
)
@click.option(
    "--traces",
    type=FILE,
    required=True,
    help="Traces, documents with a `recorded_label`, or a labels file with its --documents (JSON rows).",
)
@click.option(
    "--documents",
    "labelled",
    type=FILE,
    help="Documents that a labels file answers, where --traces names one.",
)
@click.option(
    "--out",
    type=FILE,
    default="graded.jsonl",
    show_default=True,
    help="File for all rows with their grades (JSONL).",
)
@click.option(
    "--kept",
    type=FILE,
    help="File for the rows that the rule keeps (JSONL). Without it, the rule is only reported.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    metavar="GRADE",
    help="Keep rows with at least this grade.  [default: 1, unless --best or --top is given]",
)
@click.option(
    "--best",
    type=click.IntRange(1),
    metavar="N",
    help="Keep at most N rows per trace group, the best ones. The rows need a `group`.",
)
@click.option(
    "--top",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="FRACTION",
    help="Keep this fraction of the rows, the best ones; 0.1 is a tenth.",
)
@click.option(
    "--cap",
    type=click.IntRange(1),
    metavar="N",
    help="Keep at most N rows for each value of --cap-by.",
)
@click.option(
    "--cap-by",
    metavar="FIELD",
    help="What --cap counts by: `group`, or a field of the answer, such as vendor.",
)
@click.option(
    "--against",
    type=FILE,
    multiple=True,
    help="Evaluation documents (JSONL). Rows that nearly repeat one are not kept. May be given more"
    " than once.",
)
@click.option(
    "--gold",
    type=FILE,
    help="Documents with gold answers (JSONL), to measure how often a good grade is right.",
)
@click.option(
    "--want-precision",
    type=click.FloatRange(0, 1),
    metavar="FRACTION",
    default=0.95,
    show_default=True,
    help="Suggest the lowest threshold at which this fraction of the rows is right. It needs --gold or"
    " --review.",
)
@click.option(
    "--review",
    type=click.IntRange(1),
    metavar="N",
    help="Grade N rows yourself, in the terminal, when there are no gold answers.",
)
@click.option(
    "--show",
    type=click.IntRange(1),
    metavar="N",
    help="Show the N worst and the N best rows.",
)
@options
def command(
    output: Output,
    *,
    task_file: Path,
    traces: Path,
    labelled: Path | None,
    out: Path,
    kept: Path | None,
    against: tuple[Path, ...],
    gold: Path | None,
    want_precision: float,
    review: int | None,
    show: int | None,
    **rule: Any,
) -> None:
    """Score traces with the task's checks and keep the best.

    Use it on imported traces before you train on them with filtered_sft. A grade is the weighted
    mean of an answer's checks, from 0 to 1. The report shows the grades, how many rows each rule
    would keep and, with --gold or --review, how far the grades can be trusted. Of near-duplicates one is kept.
    --threshold, --best, --top and --cap can be combined; a kept row satisfies all of them.

    Run the same command again to resume. Exit code 3: a check raised an error on some rows, which are
    named and never kept.

    \b
    Examples:
      offapi grade --task task.py --traces traces.jsonl --show 3
      offapi grade --task task.py --traces traces.jsonl --against val.jsonl --review 30
      offapi grade --task task.py --traces traces.jsonl --top 0.5 --kept kept.jsonl
      offapi grade --task task.py --traces labels.jsonl --documents train.jsonl --show 3
      offapi grade --task task.py --traces traces.jsonl --cap 20 --cap-by vendor --kept kept.jsonl
    """
    from offapi.data.documents import say_left_out
    from offapi.grading.file import grade_file, inputs, kept_file
    from offapi.grading.file.lines_file import lines_file
    from offapi.grading.file.row_reader import Lines
    from offapi.grading.keep import require_groups
    from offapi.grading.report import report
    from offapi.task import load_task

    reads = [path for path in (traces, labelled, gold, *against) if path is not None]
    _check_paths(reads, out, kept)
    if review is not None:
        from offapi.grading.file.review_terminal import require_terminal

        require_terminal()
    keep = _keep(rule)
    with lines_file(traces, labelled, out, load_task(task_file)) as lines_path:
        read = inputs.read(task_file, lines_path, cap_by=keep.cap_by, gold=gold, against=against)
        say_left_out(output, gold, labelled, *against)
        _check_field(keep, read)
        require_groups(keep, inputs.groups(lines_path, read.task), traces)
        graded = grade_file.grade(read, out, output)
    with Lines(out, graded.table, read.task) as lines:
        output.say("Looking for near-duplicates ...")
        sieve = kept_file.sieve(graded, lines, read, SEED)
        grading = report(
            graded.table,
            sieve,
            tuple(read.task.checks),
            keep,
            _truth(output, graded, lines, traces.parent, review),
            want_precision=want_precision,
            pairs=kept_file.near_evaluation(graded, lines, read),
            evaluation=len(read.evaluation) if against else None,
            fields=tuple(read.task.match),
        )
        _show_report(output, grading, read)
        hint = _other_fields(lines, read)
        output.say(f"Grades: {out}, a row for each trace.")
        if hint:
            output.say(hint)
        result = {"graded": str(out), **grading.as_dict()}
        result |= _show_rows(output, sieve, lines, show)
        result |= _write_pairs(output, grading, out) if against else {}
        result |= _write_kept(output, kept, sieve, keep, lines, read) if kept else {}
    graded.gate()
    output.result(result)


def _check_paths(named: Sequence[Path], out: Path, kept: Path | None) -> None:
    """Raise ConfigError if an output file is also an input, or is named twice."""
    reads = [path for path in named if path.exists()]
    for name, path in (("--out", out), ("--kept", kept)):
        if path is not None and path.exists() and any(path.samefile(other) for other in reads):
            what = "this command also reads that file, so writing to it would destroy the input."
            raise ConfigError(what, where=f"{name} {path}", next_step="Name another file.")
    if kept is not None and kept.absolute() == out.absolute():
        raise ConfigError(
            "--out and --kept are the same file.", where=str(out), next_step="Name another file."
        )


def _other_fields(lines: Lines, read: GradingInputs) -> str:
    """Return why the answers cannot fit, if those of the first rows lack a required field."""
    from offapi.checks.answer_reading import read_trace
    from offapi.grading.other_fields import other_fields

    rows = range(min(LOOKED_AT, lines.count))
    values = [read_trace(lines.trace(row)).value for row in rows]
    return other_fields(read.task, [value for value in values if isinstance(value, dict)])


def _keep(rule: dict[str, Any]) -> Keep:
    from offapi.grading.keep import Keep

    try:
        return Keep(**rule)
    except ValueError as error:
        raise ConfigError(f"{error}.", next_step="See `offapi grade --help`.") from None


def _check_field(keep: Keep, read: GradingInputs) -> None:
    from offapi.grading.keep import GROUP

    known = (GROUP, *(read.task.schema or {"properties": ()})["properties"])
    if keep.cap_by is not None and keep.cap_by not in known:
        what = f"the task's answers have no field {keep.cap_by!r}."
        raise ConfigError(
            what, where=f"--cap-by {keep.cap_by}", next_step=nearest(keep.cap_by, known)
        )


def _truth(
    output: Output, graded: Graded, lines: Lines, folder: Path, review: int | None
) -> Truth | None:
    """Return which rows are right, by gold answers or else by a person."""
    from offapi.grading import truth
    from offapi.grading.file.reviews import NAME, Reviews

    known = truth.from_gold(graded.table)
    if known is not None:
        if review is not None:
            output.say("Some rows have gold answers, so no review is needed: nothing is asked.")
        return known
    reviews = Reviews.read(folder / NAME)
    rows = reviews.wanted(graded.table, review) if review is not None else []
    if rows:
        from offapi.grading.file.review_terminal import ask

        reviews = ask(output, rows, graded.table, lines, reviews)
    return truth.from_reviews(graded.table, reviews.of(graded.table))


def _show_report(output: Output, report: GradingReport, read: GradingInputs) -> None:
    """Show the report in tables and sentences."""
    from offapi.grading.similarity.near_duplicates import COMPARED, SIMILAR

    output.say(
        f"\n{plural(report.rows, 'row')}: {report.unanswered:,} without an answer,"
        f" {report.forms.unread:,} with an answer that is not one JSON object,"
        f" {report.failed:,} that could not be graded."
    )
    most = max(report.histogram, default=0) or 1
    names = [f"{i / 10:.1f} - {(i + 1) / 10:.1f}" for i in range(10)] + ["1.0"]
    bars = [
        (name, f"{n:,}", "#" * round(40 * n / most))
        for name, n in zip(names, report.histogram, strict=True)
    ]
    output.table(("grade", "rows", ""), bars)
    checks = [(check.name, check.passed.percent(), f"{check.mean:.3f}") for check in report.checks]
    output.table(("check", "passed %, with 95% interval", "mean"), checks)
    estimated = (
        ", estimated to 6 points because there are many rows" if report.rows > COMPARED else ""
    )
    output.say(
        f"Documents: {plural(report.exact_duplicates, 'row repeats', 'rows repeat')} another row's document exactly,"
        f" {report.near_duplicates:,} nearly (the same numbers and {SIMILAR:.0%} of the three-word"
        f" sequences{estimated})."
    )
    _show_rules(output, report)
    if report.agreement is not None:
        output.say(
            f"How reliable the grades are, by {report.agreement.source} on"
            f" {plural(report.agreement.judged, 'row')}:"
        )
        output.table(
            ("grade at least", "rows", "right among them %", "of all right rows %"),
            report.agreement.table(),
        )
        for name in read.gold_checks if report.agreement.source == "gold" else ():
            output.say(
                f"Check {name!r} uses the gold answer, so this table does not apply to rows without"
                " gold."
            )
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in report.dropped.items()) or "none"
    output.say(
        f"Your rule keeps {report.kept:,} of {plural(report.rows, 'row')}; dropped: {dropped}."
    )
    for line in report.lines():
        output.say(line)


def _show_rules(output: Output, report: GradingReport) -> None:
    """Show what each rule would keep, with a column for the cap and for the truth if known."""
    headers = ["rule", "keeps"]
    rows = [[rule.rule, f"{rule.kept:,}"] for rule in report.rules]
    if report.keep.cap is not None:
        headers.append("with the cap")
        for row, rule in zip(rows, report.rules, strict=True):
            row.append(f"{rule.capped:,}")
    if report.agreement is not None:
        headers.append("right %")
        for row, rule in zip(rows, report.rules, strict=True):
            row.append(rule.right.percent() if rule.right else "not known")
    output.table(headers, rows)


def _show_rows(output: Output, sieve: Sieve, lines: Lines, count: int | None) -> dict[str, Any]:
    """Show and return the worst and the best rows with document, answer and reasons."""
    from offapi.grading.file.extremes import extremes

    if count is None:
        return {}
    result = {}
    for name, samples in zip(("worst", "best"), extremes(sieve, lines, count), strict=True):
        rows = [
            (f"{row.id}\n{row.score:.3f}", row.document, row.answer, "\n".join(row.reasons))
            for row in samples
        ]
        output.table((name, "document", "answer", "checks"), rows)
        result[name] = [asdict(row) for row in samples]
    return result


def _write_pairs(output: Output, report: GradingReport, out: Path) -> dict[str, Any]:
    """Write all pairs of a row and an evaluation document that is near it; show some."""
    from offapi.files import jsonl

    path, pairs = out.with_name(DECONTAMINATION), report.near_evaluation
    jsonl.write(path, map(asdict, pairs))
    rows = len({pair.row for pair in pairs})
    compared = plural(report.evaluation or 0, "evaluation document")
    output.say(
        f"Not kept, since they nearly repeat one of {compared}: {plural(rows, 'row')} (see {path})."
    )
    shown = [
        (pair.row, pair.document, f"{pair.runs:.0%}", f"{pair.numbers:.0%}")
        for pair in pairs[:PAIRS_SHOWN]
    ]
    if shown:
        output.table(("row", "evaluation document", "shared text", "shared numbers"), shown)
    return {"decontamination": str(path)}


def _write_kept(
    output: Output, path: Path, sieve: Sieve, keep: Keep, lines: Lines, read: GradingInputs
) -> dict[str, Any]:
    """Write the rows that are kept. Raise DataError if there are none."""
    from offapi.grading.file import kept_file

    mask, _ = sieve.kept(keep)
    if not mask.any():
        step = "The table above shows what other rules keep."
        raise DataError(
            "no row is kept, so the file is not written.", where=f"--kept {path}", next_step=step
        )
    kept_file.write_kept(path, mask, lines, {**read.key, "keep": asdict(keep), "seed": SEED})
    output.say(f"Kept rows: {path}")
    return {"kept_rows": str(path)}
