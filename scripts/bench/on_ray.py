"""Documents a second that a local Ray predicts with one worker, two ... on generated documents.

One thread a worker. Counted from the first batch that is done to the last, so without starting Ray
and loading models; reading and writing take no part of it worth mentioning.

Usage: python scripts/bench/on_ray.py [--documents 96] [--workers 1 2] [--backend torch]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from offapi.data import documents
from offapi.demo.generate import generate
from offapi.on_ray import PredictBatches

BATCH = 8  # documents


def rate(rows: Path, task: Path, workers: int, model: str, backend: str) -> float:
    """Return the documents a second of so many workers."""
    import ray

    compute = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1)
    settings = {"run_or_model": model, "task": str(task), "backend": backend}
    blocks = len(documents.read(rows)) // BATCH
    answers = (
        ray.data.read_text(str(rows))
        .repartition(blocks)
        .map_batches(
            PredictBatches, fn_constructor_kwargs=settings, compute=compute, batch_size=BATCH
        )
    )
    times, count = [], 0
    for batch in answers.iter_batches(batch_size=None, prefetch_batches=0):
        times.append(time.perf_counter())
        count += len(batch["text"])
    first = workers * BATCH  # each worker's first batch is not counted, and neither is its time
    return (count - first) / (times[-1] - times[workers - 1])


def main() -> None:
    """Print a line for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=96)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--model", default="demo")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import ray

    ray.init(num_cpus=max(arguments.workers) + 2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    with TemporaryDirectory() as folder:
        rows, task = Path(folder) / "documents.jsonl", Path(folder) / "task.py"
        documents.write(rows, generate("val", arguments.documents))
        task.write_text("from offapi.demo.task import task\n")
        for workers in arguments.workers:
            found = rate(rows, task, workers, arguments.model, arguments.backend)
            print(f"{workers} workers: {found:.2f} documents a second", flush=True)


if __name__ == "__main__":
    main()
