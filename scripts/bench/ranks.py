"""Measure training on two ranks against one: tokens per second, one thread a rank, as a ratio.

Each arm is a process of its own, started by the backend's launcher where it has two ranks; arms
take turns. Rows are random tokens of equal length. Left out: loading, and machines with a network
between them.

    \b
    python scripts/bench/ranks.py --backend torch
    python scripts/bench/ranks.py --backend mlx --repeats 5 --json
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import orjson

from offapi.backend import Backend, load
from offapi.episodes import Episode, Segment
from offapi.launch import find_launch
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.models.store import get
from offapi.optimizer import AdamW
from offapi.ranks.session import joined, leading

MLX_LAUNCH = (
    "import sys; from mlx._distributed_utils.launch import main; sys.argv[0] = 'mlx.launch'; main()"
)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
MEASURE = "OFFAPI_BENCH_RANKS"  # set in the processes that measure


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option("--backend", type=click.Choice(["torch", "mlx"]), default="torch", show_default=True)
@click.option("--model", default="demo", show_default=True, help="Model in the store.")
@click.option("--batch", default=8, show_default=True, help="Rows per step.")
@click.option("--tokens", default=128, show_default=True, help="Tokens of a row.")
@click.option("--steps", default=4, show_default=True, help="Timed steps, after one untimed.")
@click.option("--repeats", default=3, show_default=True, help="Pairs of runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    *, backend: str, model: str, batch: int, tokens: int, steps: int, repeats: int, as_json: bool
) -> None:
    """Run the arms in turn and print their rates, or be one of their processes."""
    if os.environ.get(MEASURE):
        measure(backend, ModelSpec(get(model).path, lora=LoraSpec()), batch, tokens, steps)
        return
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for size, measured in rates.items():
            measured.append(arm(backend, size))
    ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    one, two = (statistics.median(measured) for measured in rates.values())
    if as_json:
        click.echo(
            orjson.dumps({"one": one, "two": two, "ratio": ratio, "rates": list(rates.values())})
        )
        return
    click.echo(f"{backend}: {one:,.0f} tokens/s on one rank, {two:,.0f} on two: {ratio:.2f} times")


def arm(backend: str, size: int) -> float:
    """Return the tokens per second of this script's own arguments on `size` ranks."""
    own = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]]
    words = own
    if size > 1 and backend == "torch":
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        words = [*run, f"--nproc-per-node={size}", *own[1:]]
    elif size > 1:
        words = [sys.executable, "-c", MLX_LAUNCH, "-n", str(size), "--", *own]
    environment = {**os.environ, **ONE_THREAD, MEASURE: "1"}
    with subprocess.Popen(
        words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    return float(next(line for line in lines if line.startswith("rate ")).split()[1])


def measure(name: str, spec: ModelSpec, batch: int, tokens: int, steps: int) -> None:
    """Time the steps on this launch's ranks, or alone, and print the rate on rank 0."""
    launch = find_launch()
    if launch is None:
        click.echo(f"rate {rate(load(name, spec), batch, tokens, steps)}")
        return
    with joined(launch, lambda: sys.exit("nothing here is bound")) as member:
        if launch.rank:
            member.follow()
            return
        with leading(member) as crew:
            click.echo(f"rate {rate(crew.load(name, spec), batch, tokens, steps)}")


def rate(backend: Backend, batch: int, tokens: int, steps: int) -> float:
    """Return the trained tokens per second."""
    draw = np.random.default_rng(0)
    rows = [tuple(map(int, draw.integers(10, 1000, tokens))) for _ in range(batch)]
    episodes = [
        Episode(str(i), (Segment(row[:8], False), Segment(row[8:], True)))
        for i, row in enumerate(rows)
    ]
    started = 0.0
    for step in range(steps + 1):
        if step == 1:
            started = time.perf_counter()
        backend.forward_backward(episodes)
        backend.optim_step(1e-4, AdamW())
    return batch * tokens * steps / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
