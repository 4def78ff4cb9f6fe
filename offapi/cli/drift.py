"""`offapi drift`: fresh served traces against a reference window: fresh, watch or retrain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

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


@click.command(short_help="Tell from fresh traces whether a model has gone stale.")
@click.option("--task", "task_file", type=FILE, required=True, help="The task file (Python).")
@click.option(
    "--reference", type=FILE, required=True, help="Traces served when all was well (JSONL)."
)
@click.option(
    "--fresh", type=FILE, required=True, help="Traces served since (JSONL); the log may just grow."
)
@click.option(
    "--state", "state_file", type=FILE, help="Keep here what was counted, and go on from it."
)
@click.option(
    "--false-alarm",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="How often may there ever be an alarm where nothing drifts?",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.02,
    show_default=True,
    help="Moves of a mean that do not count.",
)
@options
def command(
    output: Output,
    *,
    task_file: Path,
    reference: Path,
    fresh: Path,
    state_file: Path | None,
    false_alarm: float,
    margin: float,
) -> int:
    """Grade fresh traces with the task's checks, without gold, and hold them against a reference window.

    Says fresh, watch or retrain by a sequential test: run it every day with the same --state, the
    false-alarm rate holds for all looks together. Exit code 3: retrain. Rows are taken to be
    independent; of rows with the same `group` the first one counts.

    \b
    offapi drift --task task.py --reference launch.jsonl --fresh served.jsonl --state drift.json
    """
    from offapi.drift import report, state, without_gold
    from offapi.drift.monitor import DriftMonitor
    from offapi.drift.reference import read_reference
    from offapi.drift.rows import RowTally, TraceSource
    from offapi.drift.signals import task_signals
    from offapi.files.hashing import sha256_file

    _check_paths(state_file, (task_file, reference, fresh))
    task = without_gold.load(task_file)
    watching, tally = task_signals(task), RowTally()
    with state.alone(state_file):
        known = read_reference(TraceSource(reference, task_file, task, watching), output)
        watch = DriftMonitor(known, watching, margin)
        key = {
            "format": state.FORMAT,
            "task": sha256_file(task_file),
            "reference": sha256_file(reference),
            "margin": margin,
        }
        before = state.read(state_file, key, watch.start()) if state_file else watch.start()
        after = watch.run(
            before, TraceSource(fresh, task_file, task, watching, known.ids), tally, output
        )
        _tell_rows(output, fresh, after, after.rows - before.rows, known.tally, tally)
        if state_file is not None:
            state.write(state_file, key, after)
    told = report.drift_report(watch, after, false_alarm)
    following = report.next_commands(told.verdict, task_file, fresh)
    _tell(output, told, following)
    output.result(
        {
            **told.as_dict(),
            "new_rows": after.rows - before.rows,
            "passed_over": tally.passed_over,
            "next": following,
            "state": str(state_file) if state_file else None,
        }
    )
    return RETRAIN if told.verdict == "retrain" else 0


def _check_paths(state_file: Path | None, reads: tuple[Path, ...]) -> None:
    """ConfigError when the state would be written over what is read, or nowhere."""
    if state_file is None:
        return
    if state_file.exists() and any(path.exists() and state_file.samefile(path) for path in reads):
        step = "Name another file."
        raise ConfigError(
            "it is read by this command too.", where=f"--state {state_file}", next_step=step
        )
    if not state_file.absolute().parent.is_dir():
        step = "Make it, or name another."
        raise ConfigError("there is no such folder.", where=f"--state {state_file}", next_step=step)


def _tell_rows(
    output: Output, fresh: Path, after: State, new: int, known: RowTally, tally: RowTally
) -> None:
    """Which rows counted and which did not; DataError where there is none."""
    passed = ", ".join(f"{count:,} {reason}" for reason, count in sorted(tally.passed_over.items()))
    if not after.rows:
        what = f"there is no fresh row in it{f' ({passed})' if passed else ''}."
        raise DataError.at(what, path=fresh, next_step="Give it rows served since the reference.")
    output.say(
        f"{new:,} new rows, {after.rows:,} in all{f'; passed over: {passed}' if passed else ''}."
    )
    for name, rows in (("reference", known), ("fresh", tally)):
        if rows.failed:
            output.say(
                f"{plural(rows.failed, 'row')} ({name}) could not be graded and do not count; the first: {rows.first}"
            )


def _tell(output: Output, told: DriftReport, following: list[str]) -> None:
    headers = (
        "watched",
        "reference %",
        "fresh %",
        "lately %",
        "difference, 95% interval",
        "highest e",
        "",
    )
    output.table(headers, [one.cells() for one in told.watched])
    output.say("Lengths are places among the reference's lengths; the intervals are for one look.")
    for line in told.lines():
        output.say(line)
    for one in told.watched:
        _tell_list(output, f"{one.name}: rows that drove it", one.rows)
    if not any(one.rows for one in told.watched):
        _tell_list(output, "lowest grades", told.worst)
        _tell_list(output, "most novel", told.most_novel)
    for line in following:
        output.say(f"Next: {line}")


def _tell_list(output: Output, title: str, rows: tuple[OutlierRow, ...]) -> None:
    if rows:
        output.table((title, ""), [(row.id, row.reason) for row in rows])
