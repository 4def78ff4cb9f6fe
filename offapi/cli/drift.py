"""`offapi drift`: recent traces compared with a reference window; verdict fresh, watch or retrain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from offapi.cli.output import Output, options
from offapi.errors import ConfigError, DataError
from offapi.text.display import plural

if TYPE_CHECKING:
    from offapi.drift.outliers import OutlierRow
    from offapi.drift.report import DriftReport
    from offapi.drift.rows import RowTally
    from offapi.drift.state import State

FILE = click.Path(path_type=Path)
RETRAIN = 3  # the exit code


@click.command(short_help="Check recent traces for drift.")
@click.option(
    "--task",
    "task_file",
    type=FILE,
    help="Task file (Python), whose checks score the answers.",
)
@click.option(
    "--reference",
    type=FILE,
    help="The reference window: traces served while all was well (JSONL).",
)
@click.option(
    "--fresh",
    type=FILE,
    required=True,
    help="Traces served since then (JSONL). The file may keep growing.",
)
@click.option(
    "--promise",
    "run",
    type=FILE,
    metavar="RUN",
    help="Test a calibrated run's promise instead: --fresh then names answers of `offapi predict` to"
    ' which a reviewer added "gold".',
)
@click.option(
    "--state",
    "state_file",
    type=FILE,
    help="File that keeps the counts from one call to the next. Without it, every call starts anew,"
    " and the false-alarm rate holds for that call only.",
)
@click.option(
    "--false-alarm",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    metavar="PROBABILITY",
    help="Probability of ever raising a false alarm, over all calls with the same --state.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.02,
    show_default=True,
    metavar="FRACTION",
    help="Ignore changes of a check's mean score smaller than this; 0.02 is 2 percentage points.",
)
@options
def command(
    output: Output,
    *,
    task_file: Path | None,
    reference: Path | None,
    fresh: Path,
    run: Path | None,
    state_file: Path | None,
    false_alarm: float,
    margin: float,
) -> int:
    """Check recent traces for drift: have the requests, or the quality of the answers, changed?

    Use it on a model that serves requests, every day if you like. It grades the traces with the
    task's checks, without gold answers, and compares them with the reference window. The verdict is
    fresh (no change found), watch (a change is possible) or retrain (a change is certain enough;
    exit code 3).

    A sequential test allows any number of calls: with the same --state, the false-alarm probability
    holds for all of them together. Rows are assumed to be independent; of rows with the same `group`,
    only the first one counts.

    With --promise, it tests whether the answers that the run's calibration accepts are wrong more
    often than promised. If so, the promise is withdrawn, and `offapi predict` accepts nothing until
    the run is calibrated again (exit code 3). A promise that holds is withdrawn with the
    calibration's --delta at most, however often you check.

    \b
    Examples:
      offapi drift --task task.py --reference launch.jsonl --fresh served.jsonl --state drift.json
      offapi drift --promise runs/distill --fresh reviewed-answers.jsonl
    """
    if run is not None:
        return _watch_promise(output, run, fresh)
    if task_file is None or reference is None:
        raise click.UsageError(f"Missing option '--{'reference' if task_file else 'task'}'.")
    from offapi.data.lines_copy import as_lines_file
    from offapi.drift import report, state, without_gold
    from offapi.drift.monitor import DriftMonitor
    from offapi.drift.reference import read_reference
    from offapi.drift.rows import RowTally, TraceSource
    from offapi.drift.signals import task_signals
    from offapi.files.hashing import sha256_file

    _check_paths(state_file, (task_file, reference, fresh))
    task = without_gold.load(task_file)
    watching, tally = task_signals(task), RowTally()
    with (
        state.alone(state_file),
        as_lines_file(reference) as before_rows,
        as_lines_file(fresh) as fresh_rows,
    ):
        known = read_reference(TraceSource(before_rows, task_file, task, watching), output)
        monitor = DriftMonitor(known, watching, margin)
        key = {
            "format": state.FORMAT,
            "task": sha256_file(task_file),
            "reference": sha256_file(before_rows),
            "margin": margin,
        }
        before = state.read(state_file, key, monitor.start()) if state_file else monitor.start()
        after = monitor.run(
            before, TraceSource(fresh_rows, task_file, task, watching, known.ids), tally, output
        )
        _check_rows(fresh, after, tally)
        if state_file is not None:
            state.write(state_file, key, after)
    drift_report = report.drift_report(monitor, after, false_alarm)
    commands = report.next_commands(drift_report.verdict, task_file, fresh)
    output.say(drift_report.headline())
    _show_rows(output, after, after.rows - before.rows, known.tally, tally)
    _show_report(output, drift_report, commands)
    output.result(
        {
            **drift_report.as_dict(),
            "new_rows": after.rows - before.rows,
            "passed_over": tally.passed_over,
            "next": commands,
            "state": str(state_file) if state_file else None,
        }
    )
    return RETRAIN if drift_report.verdict == "retrain" else 0


def _watch_promise(output: Output, run: Path, reviewed: Path) -> int:
    """Test a run's promise on reviewed answers; return 3 where it is withdrawn."""
    from offapi.drift.promise_watch import watch_promise
    from offapi.training.run import Run

    context = click.get_current_context()
    given = ("task_file", "reference", "state_file", "false_alarm", "margin")
    for name in given:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = name.removesuffix("_file").replace("_", "-")
            raise click.UsageError(f"--{option} has no effect with --promise.")
    report = watch_promise(Run.open(run), reviewed)
    output.say(report.headline())
    head = ("accepted", "reviewed", "wrong", "wrong, percent", "evidence", "")
    output.table(head, [finding.cells() for finding in report.findings])
    output.say(f"Evidence against a promise counts from {report.alarm:,.0f}.")
    if not report.kept:
        output.say(f"Next: offapi calibrate {run} --data NEWLY-REVIEWED.jsonl")
    output.result(report.as_dict())
    return 0 if report.kept else RETRAIN


def _check_paths(state_file: Path | None, reads: tuple[Path, ...]) -> None:
    """Raise ConfigError if the state file is also an input, or its folder does not exist."""
    if state_file is None:
        return
    if state_file.exists() and any(path.exists() and state_file.samefile(path) for path in reads):
        what = "this command also reads that file, so writing to it would destroy the input."
        raise ConfigError(what, where=f"--state {state_file}", next_step="Name another file.")
    if not state_file.absolute().parent.is_dir():
        step = "Create it, or name another."
        raise ConfigError(
            "the folder does not exist.", where=f"--state {state_file}", next_step=step
        )


def _skipped(tally: RowTally) -> str:
    counts = sorted(tally.passed_over.items())
    return ", ".join(f"{count:,} {reason}" for reason, count in counts)


def _check_rows(fresh: Path, after: State, tally: RowTally) -> None:
    """Raise DataError if no fresh row counted."""
    skipped = _skipped(tally)
    if not after.rows:
        what = f"the file has no fresh row{f' ({skipped})' if skipped else ''}."
        step = "Name a file with rows served after the reference."
        raise DataError.at(what, path=fresh, next_step=step)


def _show_rows(output: Output, after: State, new: int, known: RowTally, tally: RowTally) -> None:
    """Show how many rows counted and how many did not."""
    skipped = _skipped(tally)
    more = f"; skipped: {skipped}" if skipped else ""
    output.say(f"{plural(new, 'new row')}, {after.rows:,} in all{more}.")
    for name, rows in (("reference", known), ("fresh", tally)):
        if rows.failed:
            output.say(
                f"{plural(rows.failed, 'row')} ({name}) could not be graded and do not count;"
                f" the first: {rows.first}"
            )


def _show_report(output: Output, report: DriftReport, commands: list[str]) -> None:
    headers = ("watched", "reference", "fresh", "recent", "change, 95% interval", "evidence", "")
    output.table(headers, [signal.cells() for signal in report.watched])
    output.say(
        f"Changes are in percentage points; of a length: longer than how many of the reference's."
        f" Their intervals hold for one call. Evidence counts from {report.alarm:,.0f}."
    )
    for line in report.lines():
        output.say(line)
    for signal in report.watched:
        _show_list(output, f"{signal.name}: rows that drove it", signal.rows)
    if not any(signal.rows for signal in report.watched):
        _show_list(output, "lowest grades", report.worst)
        _show_list(output, "most novel", report.most_novel)
    if report.verdict == "retrain":
        output.say(
            "New labels come first: the served answers hold the mistakes that were found, so do not"
            " train on them."
        )
    for line in commands:
        output.say(f"Next: {line}")


def _show_list(output: Output, title: str, rows: tuple[OutlierRow, ...]) -> None:
    if rows:
        output.table((title, ""), [(row.id, row.reason) for row in rows])
