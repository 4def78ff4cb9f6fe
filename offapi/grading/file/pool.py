"""Grade stretches of a traces file in helper processes; no check that hangs or dies stops it.

A check cannot be stopped from within its process while it runs a library's C code. The process is
ended instead, and a new one continues without that row. Left out: how, see `offapi.workers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from offapi.errors import RunError
from offapi.grading.file.worker import GradedJob, GradingJob, GradingSettings, grading
from offapi.workers.ordered_pool import answer_in_order
from offapi.workers.supervised import Ended

# seconds beyond the task's `check_seconds`: a check in C code does not notice that limit
GRACE = 5.0


def grade(
    jobs: Iterator[GradingJob], settings: GradingSettings, seconds: float | None
) -> Iterator[GradedJob]:
    """Yield each job's result, in order; a row may take `seconds` (None: no limit).

    Raises what a job raised: DataError for a row that is not a trace.
    """

    def without_the_row(job: GradingJob, ended: Ended) -> GradingJob:
        why = f"ended the process ({ended.how})."
        if not ended.how:
            why = f"took more than {seconds:g} s, ignored the time limit and was ended."
        if ended.call is None:
            step = "Run it again with OFFAPI_DEBUG=1 to see what the task file does on loading."
            raise RunError(
                f"a grading process {why}", where=str(settings.task_file), next_step=step
            )
        return replace(job, broken={**job.broken, ended.call.place: f"{ended.call.name} {why}"})

    answers = answer_in_order(jobs, grading, settings, without_the_row, seconds=seconds, ahead=2)
    for _, done in answers:
        yield done
