"""Import records in helper processes: jobs in, results out in the same order.

Left out: checks for processes that hang, since importers do not run other people's code.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from offapi.data.importers.records import ImportJob
from offapi.data.importers.worker import ImportedJob, ImportSettings, Worker, importing
from offapi.errors import RunError
from offapi.workers.ordered_pool import PROCESSES, answer_in_order
from offapi.workers.supervised import Ended


def work(
    jobs: Iterator[ImportJob], settings: ImportSettings
) -> Iterator[tuple[ImportJob, ImportedJob]]:
    """Yield each job with its result, in order.

    A few jobs are done in this process, since starting others takes longer.
    """
    first = list(islice(jobs, PROCESSES + 1))
    if len(first) <= PROCESSES:
        worker = Worker(settings)
        yield from ((job, worker.work(job)) for job in first)
        return
    yield from answer_in_order(chain(first, jobs), importing, settings, _stop)


def _stop(job: ImportJob, ended: Ended) -> ImportJob:
    step = (
        "The machine may be out of memory. Free some, then run the same command again; it resumes."
    )
    raise RunError("an importing process ended unexpectedly.", next_step=step)
