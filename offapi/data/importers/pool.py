"""Importing processes: jobs in, results out in the same order.

A process has one job at a time, and gets it when it waits for one: no pipe is ever written by both
ends at once. Left out: checks for processes that hang, since importers run no code of others.
"""

from __future__ import annotations

import multiprocessing as mp
import signal
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, cycle, islice
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from offapi.data.importers.records import ImportJob
from offapi.data.importers.worker import Done, Settings, Worker, serve
from offapi.errors import RunError
from offapi.workers import spawn

PROCESSES = 2


def work(jobs: Iterator[ImportJob], settings: Settings) -> Iterator[tuple[ImportJob, Done]]:
    """Each job with its result, in order.

    A few jobs are done in this process, since starting others takes longer.
    """
    first = list(islice(jobs, PROCESSES + 1))
    if len(first) <= PROCESSES:
        worker = Worker(settings)
        yield from ((job, worker.work(job)) for job in first)
        return
    processes = [_start(settings) for _ in range(PROCESSES)]
    try:
        yield from _in_turn(chain(first, jobs), [pipe for _, pipe in processes])
    except (EOFError, ConnectionError) as error:
        step = (
            "The machine may be out of memory: free some, and run the same command again, which"
            " goes on."
        )
        raise RunError("an importing process ended.", next_step=step) from error
    finally:
        for process, pipe in processes:
            process.kill()
            process.join()
            pipe.close()


def _in_turn(
    jobs: Iterator[ImportJob], pipes: list[Connection]
) -> Iterator[tuple[ImportJob, Done]]:
    """Round by round: the process whose answer is the next
    in order gets a new job before its answer is used.
    """
    given: list[ImportJob | None] = []
    for pipe in pipes:
        given.append(_give(pipe, next(jobs, None)))
    for turn in cycle(range(len(pipes))):
        job = given[turn]
        if job is None:
            return
        done: Done = pipes[turn].recv()
        given[turn] = _give(pipes[turn], next(jobs, None))
        yield job, done


def _give(pipe: Connection, job: ImportJob | None) -> ImportJob | None:
    if job is not None:
        with suppress(BrokenPipeError):  # it died: taking its answer finds out
            pipe.send(job)
    return job


def _start(settings: Settings) -> tuple[SpawnProcess, Connection]:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, settings), daemon=True)
    spawn.start(process, signal.SIGINT)  # we end it ourselves
    theirs.close()
    return process, ours
