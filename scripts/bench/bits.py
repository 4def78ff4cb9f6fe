"""Measure a step of supervised fine-tuning on a base in float32, 8 and 4 bits: memory and speed.

Each case is a process of its own, with the same rows of random tokens and LoRA (r 16) on all linear
layers. Memory is the process's, less what it held before the model was loaded; the shortest of
the steps counts. On a CPU torch reads weights from a mapped file, whose pages count too, although
the system may take them back: of a small model they hide what bits save. Left out: what a
quantisation costs in accuracy, which `offapi eval` measures.

    \b
    python scripts/bench/bits.py
    python scripts/bench/bits.py --backend mlx --tokens 512 --optimizer-bits 8
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import click
import numpy as np

BITS = (None, 8, 4)


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option(
    "--backend",
    "backends",
    type=click.Choice(["torch", "mlx"]),
    multiple=True,
    default=["torch", "mlx"],
    help="Backend to measure; may be repeated.  [default: both]",
)
@click.option("--model", default="demo", show_default=True, help="Model in the store.")
@click.option("--rows", default=4, show_default=True, help="Rows of a step.")
@click.option("--tokens", default=256, show_default=True, help="Tokens of a row.")
@click.option("--steps", default=3, show_default=True, help="Timed steps, after one untimed.")
@click.option("--optimizer-bits", default=32, show_default=True, help="Bits of AdamW's moments.")
def main(
    backends: tuple[str, ...], model: str, rows: int, tokens: int, steps: int, optimizer_bits: int
) -> None:
    """Print a table, a row for each backend and base."""
    print("| backend | base | loaded, MB | peak, MB | tokens/s |")
    print("|---|---|---|---|---|")
    for name in backends:
        for bits in BITS:
            case = (name, model, bits, rows, tokens, steps, optimizer_bits)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                loaded, peak, speed = process.submit(measure, *case).result()
            base = "float32" if bits is None else f"{bits} bits"
            print(f"| {name} | {base} | {loaded / 1e6:.0f} | {peak / 1e6:.0f} | {speed:.0f} |")
            sys.stdout.flush()


def measure(
    name: str, model: str, bits: int | None, rows: int, tokens: int, steps: int, moments: int
) -> tuple[int, int, float]:
    """Return the bytes when loaded and at the peak, and the tokens a second."""
    import psutil

    from offapi.backend import find, load
    from offapi.episodes import Episode, Segment
    from offapi.model_spec import LoraSpec, ModelSpec
    from offapi.models.store import get
    from offapi.optimizer import AdamW

    path = get(model).path
    find(name)  # so that the library's own memory is not counted
    before = psutil.Process().memory_info().rss
    spec = ModelSpec(path, lora=LoraSpec(), quantize=bits)
    backend, draw = load(name, spec), np.random.default_rng(0)
    loaded = psutil.Process().memory_info().rss - before
    batch = []
    for i in range(rows):
        row = tuple(draw.integers(1000, 40_000, tokens).tolist())
        batch.append(Episode(str(i), (Segment(row[:1], False), Segment(row[1:], True))))
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        backend.forward_backward(batch)
        backend.optim_step(1e-4, AdamW(bits=moments))
        seconds.append(time.perf_counter() - start)
    return loaded, backend.memory().peak - before, rows * tokens / min(seconds[1:])


if __name__ == "__main__":
    main()
