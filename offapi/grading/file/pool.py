"""Stretches of a traces file graded by helper processes, which no check that hangs or dies stops.

A check cannot be stopped from within its process while it is in a library's C code, so the
process is ended, and a new one continues without that row. Left out: how, see `offapi.workers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from offapi.errors import RunError
from offapi.grading.file.worker import GradedJob, GradingJob, GradingSettings, grading
from offapi.workers.ordered_pool import answer_in_order
from offapi.workers.supervised import Ended

GRACE = 5.0  # seconds beyond the task's `check_seconds`, which a check in C code does not hear


def grade(
    jobs: Iterator[GradingJob], settings: GradingSettings, seconds: float | None
) -> Iterator[GradedJob]:
    """Yield each job's result, in order; a row may take `seconds`, None: for ever.

    Raises what a job met: DataError for a row that is no trace.
    """

    def without_the_row(job: GradingJob, ended: Ended) -> GradingJob:
        why = f"ended the process ({ended.how})."
        if not ended.how:
            why = f"took more than {seconds:g} s, heard no alarm and was ended with its process."
        if ended.call is None:
            step = "see what the task file does when it is loaded."
            step = f"Run it again with OFFAPI_DEBUG=1, and {step}"
            raise RunError(
                f"a grading process {why}", where=str(settings.task_file), next_step=step
            )
        return replace(job, broken={**job.broken, ended.call.place: f"{ended.call.name} {why}"})

    answers = answer_in_order(jobs, grading, settings, without_the_row, seconds=seconds, ahead=2)
    for _, done in answers:
        yield done
