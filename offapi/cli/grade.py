"""`offapi grade`: grade traces with a task's checks,
say what the grades are worth, keep the best.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offapi.cli.output import Output, options
from offapi.errors import ConfigError, DataError, nearest

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
DECONTAMINATION = "decontamination.jsonl"


@click.command(short_help="Grade traces with a task's checks, and keep the best.")
@click.option("--task", "task_file", type=FILE, required=True, help="The task file (Python).")
@click.option(
    "--traces", type=FILE, required=True, help="Traces, or documents with a recorded_label (JSONL)."
)
@click.option(
    "--out", type=FILE, default="graded.jsonl", show_default=True, help="Every row with its grade."
)
@click.option("--kept", type=FILE, help="Write the rows that are kept here.")
@click.option(
    "--threshold", type=click.FloatRange(0, 1), help="Keep grades from this on.  [default: 1]"
)
@click.option(
    "--best", type=click.IntRange(1), help="Keep so many of each trace group; needs rows with one."
)
@click.option(
    "--top", type=click.FloatRange(0, 1, min_open=True), help="Keep this fraction, the best."
)
@click.option(
    "--cap", type=click.IntRange(1), help="Keep at most so many rows for each value of --cap-by."
)
@click.option("--cap-by", metavar="FIELD", help="`group`, or a field of the answer.")
@click.option(
    "--against", type=FILE, multiple=True, help="Evaluation documents: rows near one are not kept."
)
@click.option("--gold", type=FILE, help="Documents with gold answers, to grade the grader with.")
@click.option("--want-precision", type=click.FloatRange(0, 1), default=0.95, show_default=True)
@click.option(
    "--review", type=click.IntRange(1), help="Judge so many rows yourself, where there is no gold."
)
@click.option(
    "--show", type=click.IntRange(1), help="Show so many of the worst and of the best rows."
)
@options
def command(
    output: Output,
    *,
    task_file: Path,
    traces: Path,
    out: Path,
    kept: Path | None,
    against: tuple[Path, ...],
    gold: Path | None,
    want_precision: float,
    review: int | None,
    show: int | None,
    **rule: Any,
) -> None:
    """Grade traces, and see what the grades are worth and what each keep rule would keep.

    Stop it at any time: the same command goes on where it stopped. Exit code 3: a check could
    not judge some rows, which are named and never kept.

    \b
    offapi grade --task task.py --traces traces.jsonl --out graded.jsonl --show 3
    offapi grade --task task.py --traces traces.jsonl --against val.jsonl --review 30
    offapi grade --task task.py --traces traces.jsonl --cap 20 --cap-by vendor --kept kept.jsonl
    """
    from offapi.grading.file import grade_file, inputs, kept_file
    from offapi.grading.file.row_reader import Lines
    from offapi.grading.keep import require_groups
    from offapi.grading.report import report

    _check_paths(traces, out, kept, gold, against)
    if review is not None:
        from offapi.grading.file.review_terminal import require_terminal

        require_terminal()
    keep = _keep(rule)
    read = inputs.read(task_file, traces, cap_by=keep.cap_by, gold=gold, against=against)
    _check_field(keep, read)
    require_groups(keep, inputs.groups(traces, read.task), traces)
    graded = grade_file.grade(read, out, output)
    with Lines(out, graded.table, read.task) as lines:
        output.say("Looking for near-duplicates ...")
        sieve = kept_file.sieve(graded, lines, read, SEED)
        told = report(
            graded.table,
            sieve,
            tuple(read.task.checks),
            keep,
            _truth(output, graded, lines, traces.parent, review),
            want_precision=want_precision,
            pairs=kept_file.near_evaluation(graded, lines, read),
            evaluation=len(read.evaluation) if against else None,
        )
        _tell(output, told, read)
        result = {"graded": str(out), **told.as_dict(), **_show(output, sieve, lines, show)}
        result |= _write_pairs(output, told, out) if against else {}
        result |= _write_kept(output, kept, sieve, keep, lines, read) if kept else {}
    graded.gate()
    output.result(result)


def _check_paths(
    traces: Path, out: Path, kept: Path | None, gold: Path | None, against: tuple[Path, ...]
) -> None:
    """ConfigError when a file would be written over one that is read, or twice."""
    reads = [path for path in (traces, gold, *against) if path is not None and path.exists()]
    for name, path in (("--out", out), ("--kept", kept)):
        if path is not None and path.exists() and any(path.samefile(other) for other in reads):
            raise ConfigError(
                "it is read by this command too.",
                where=f"{name} {path}",
                next_step="Name another file.",
            )
    if kept is not None and kept.absolute() == out.absolute():
        raise ConfigError(
            "--out and --kept are the same file.", where=str(out), next_step="Name another file."
        )


def _keep(rule: dict[str, Any]) -> Keep:
    from offapi.grading.keep import Keep

    try:
        return Keep(**rule)
    except ValueError as error:
        raise ConfigError(f"{error}.", next_step="See `offapi grade --help`.") from None


def _check_field(keep: Keep, read: GradingInputs) -> None:
    from offapi.grading.keep import GROUP

    known = (GROUP, *read.task.schema["properties"])
    if keep.cap_by is not None and keep.cap_by not in known:
        what = f"the task's answers have no field {keep.cap_by!r}."
        raise ConfigError(
            what, where=f"--cap-by {keep.cap_by}", next_step=nearest(keep.cap_by, known)
        )


def _truth(
    output: Output, graded: Graded, lines: Lines, folder: Path, review: int | None
) -> Truth | None:
    """What gold says or, where there is none, a person."""
    from offapi.grading import truth
    from offapi.grading.file.reviews import NAME, Reviews

    known = truth.from_gold(graded.table)
    if known is not None:
        if review is not None:
            output.say(
                "Some rows have gold, which tells more than a review would: nothing is asked."
            )
        return known
    reviews = Reviews.read(folder / NAME)
    rows = reviews.wanted(graded.table, review) if review is not None else []
    if rows:
        from offapi.grading.file.review_terminal import ask

        reviews = ask(output, rows, graded.table, lines, reviews)
    return truth.from_reviews(graded.table, reviews.of(graded.table))


def _tell(output: Output, told: GradingReport, read: GradingInputs) -> None:
    """The report in tables and sentences."""
    from offapi.grading.similarity.near_duplicates import COMPARED, SIMILAR

    output.say(
        f"\n{told.rows:,} rows, {told.failed:,} could not be graded, {told.unanswered:,} have no"
        " answer."
    )
    most = max(told.histogram, default=0) or 1
    names = [f"{i / 10:.1f} - {(i + 1) / 10:.1f}" for i in range(10)] + ["1.0"]
    bars = [
        (name, f"{n:,}", "#" * round(40 * n / most))
        for name, n in zip(names, told.histogram, strict=True)
    ]
    output.table(("grade", "rows", ""), bars)
    checks = [(check.name, check.passed.percent(), f"{check.mean:.3f}") for check in told.checks]
    output.table(("check", "passed %, with 95% interval", "mean"), checks)
    estimated = (
        ", estimated to 6 points where there are so many rows" if told.rows > COMPARED else ""
    )
    output.say(
        f"Documents: {told.exact_duplicates:,} rows repeat another's word for word,"
        f" {told.near_duplicates:,} nearly so (the same numbers, and {SIMILAR:.0%} of the runs of"
        f" three words{estimated})."
    )
    _tell_rules(output, told)
    if told.agreement is not None:
        output.say(
            f"The grader, graded by {told.agreement.source} on {told.agreement.judged:,} rows:"
        )
        output.table(
            ("grade from", "judged", "right among those %", "of all right ones %"),
            told.agreement.table(),
        )
        for name in read.gold_checks if told.agreement.source == "gold" else ():
            output.say(
                f"Check {name!r} looks at the gold answer, so this table says nothing of rows"
                " without gold."
            )
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in told.dropped.items()) or "none"
    output.say(f"Kept by the rule asked for: {told.kept:,} of {told.rows:,}; dropped: {dropped}.")
    for line in told.lines():
        output.say(line)


def _tell_rules(output: Output, told: GradingReport) -> None:
    """What each rule would keep; a column for the cap and for the truth where there are such."""
    capped, known = told.keep.cap is not None, told.agreement is not None
    headers = (
        "rule",
        "keeps",
        *(("with the cap",) if capped else ()),
        *(("right %",) if known else ()),
    )
    rows = []
    for rule in told.rules:
        right = rule.right.percent() if rule.right else "not known"
        more = (*((f"{rule.capped:,}",) if capped else ()), *((right,) if known else ()))
        rows.append((rule.rule, f"{rule.kept:,}", *more))
    output.table(headers, rows)


def _show(output: Output, sieve: Sieve, lines: Lines, count: int | None) -> dict[str, Any]:
    """The worst and the best rows, document, answer and reasons side by side."""
    from offapi.grading.file.extremes import extremes

    if count is None:
        return {}
    found = dict(zip(("worst", "best"), extremes(sieve, lines, count), strict=True))
    for name, samples in found.items():
        rows = [
            (f"{one.id}\n{one.score:.3f}", one.document, one.answer, "\n".join(one.reasons))
            for one in samples
        ]
        output.table((name, "document", "answer", "checks"), rows)
    return {name: [asdict(one) for one in samples] for name, samples in found.items()}


def _write_pairs(output: Output, told: GradingReport, out: Path) -> dict[str, Any]:
    """The pairs near an evaluation document, all in a file, some shown."""
    from offapi.files import jsonl

    path, pairs = out.with_name(DECONTAMINATION), told.near_evaluation
    jsonl.write(path, map(asdict, pairs))
    rows = len({pair.row for pair in pairs})
    output.say(
        f"{rows:,} rows are near one of {told.evaluation:,} evaluation documents and are not kept"
        f" ({path})."
    )
    shown = [
        (pair.row, pair.document, f"{pair.runs:.0%}", f"{pair.numbers:.0%}")
        for pair in pairs[:PAIRS_SHOWN]
    ]
    if shown:
        output.table(("row", "evaluation document", "holds of its text", "of its numbers"), shown)
    return {"decontamination": str(path)}


def _write_kept(
    output: Output, path: Path, sieve: Sieve, keep: Keep, lines: Lines, read: GradingInputs
) -> dict[str, Any]:
    """The rows that are kept; DataError where there are none."""
    from offapi.grading.file import kept_file

    mask, _ = sieve.kept(keep)
    if not mask.any():
        step = "See the table for what other rules keep."
        raise DataError(
            "no row is kept, so the file is not written.", where=f"--kept {path}", next_step=step
        )
    kept_file.write_kept(path, mask, lines, {**read.key, "keep": asdict(keep), "seed": SEED})
    output.say(f"Kept rows: {path}")
    return {"kept_rows": str(path)}
