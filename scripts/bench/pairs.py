"""Arms measured in turn, A B A B, each in a separate process, and the ratios of neighbouring pairs.

A shared machine is faster in one minute than in the next. Neighbours see the same minute, so the
ratios of pairs hold where the seconds themselves do not. Left out: tests of significance.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import orjson

Result = dict[str, Any]
PACKAGES = ("offapi-kit", "torch", "transformers", "peft", "trl", "mlx", "mlx-lm")


@dataclass
class Clock:
    """Wall and processor seconds, and peak memory, of what runs between `start` and `stop`."""

    device: str
    begun: tuple[float, float] = (0.0, 0.0)
    measured: Result = field(default_factory=dict)

    def start(self) -> None:
        synchronize(self.device)
        self.begun = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        synchronize(self.device)
        wall, cpu = time.perf_counter() - self.begun[0], time.process_time() - self.begun[1]
        self.measured = {"seconds": wall, "cpu_seconds": cpu, "peak_bytes": peak_bytes(self.device)}


def synchronize(device: str) -> None:
    """Wait for a GPU; MLX's arms themselves evaluate what they time."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def peak_bytes(device: str) -> int:
    """Return the peak memory of this process: on a device with its own memory, else resident."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated())
    if device == "gpu":
        import mlx.core as mx

        return int(mx.get_peak_memory())
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def interleave(
    script: str, arms: Sequence[str], repeats: int, work: Mapping[str, Any], threads: int
) -> dict[str, list[Result]]:
    """Return `repeats` results of each arm, taken in turn.

    Each run is `script --child ARM FOLDER`, with `work` in FOLDER/work.json.
    """
    results: dict[str, list[Result]] = {arm: [] for arm in arms}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "work.json").write_bytes(orjson.dumps(work))
        for repeat in range(repeats):
            for arm in arms:
                result = _child(script, arm, folder, threads)
                results[arm].append(result)
                speed = result["tokens"] / result["seconds"]
                note(
                    f"{repeat + 1}/{repeats} {arm}: {speed:.1f} tokens/s, {result['seconds']:.1f} s"
                )
    return results


def _child(script: str, arm: str, folder: Path, threads: int) -> Result:
    counts = {
        name: str(threads)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    environment = {
        **os.environ,
        **counts,
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
    }
    result_path = folder / "result.json"
    result_path.unlink(missing_ok=True)
    log = folder / "log"
    with log.open("wb") as log_file:
        command = [sys.executable, script, "--child", arm, str(folder)]
        code = subprocess.run(
            command, env=environment, stdout=log_file, stderr=subprocess.STDOUT
        ).returncode
    if code or not result_path.exists():
        note(log.read_text(errors="replace")[-4000:])
        sys.exit(f"error: arm {arm!r} failed with exit code {code}; its last output is above.")
    result: Result = orjson.loads(result_path.read_bytes())
    return result


def finish(folder: Path, clock: Clock, tokens: int, **more: Any) -> None:
    """Write what a child returns. The BLAS is timed here too, so that it sees the same minute."""
    result = {
        **clock.measured,
        "tokens": tokens,
        "device": clock.device,
        "blas_gflops": gemm_gflops(),
        **more,
    }
    (folder / "result.json").write_bytes(orjson.dumps(result))


def gemm_gflops() -> float:
    """Return the best speed of ten fp32 products of 1024 x 1024 by NumPy's BLAS.

    That is the most that this many threads can do.
    """
    import numpy as np

    size = 1024
    matrix = np.ones((size, size), np.float32)
    best = float("inf")
    for _ in range(10):
        begun = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best / 1e9


def ratios(ours: Sequence[Result], theirs: Sequence[Result], unit: str) -> Result:
    """Return median and extremes of the ratios of pairs.

    Above 1, offapi is faster, or takes more memory.
    """

    def spread(values: list[float]) -> Result:
        return {"median": median(values), "low": min(values), "high": max(values)}

    pairs = list(zip(ours, theirs, strict=True))
    return {
        unit: spread([b["seconds"] * a["tokens"] / a["seconds"] / b["tokens"] for a, b in pairs]),
        f"{unit}_by_cpu": spread(
            [b["cpu_seconds"] * a["tokens"] / a["cpu_seconds"] / b["tokens"] for a, b in pairs]
        ),
        "peak_memory": spread([a["peak_bytes"] / b["peak_bytes"] for a, b in pairs]),
    }


def summary(
    results: Mapping[str, Sequence[Result]], threads: int, flops: Mapping[str, float]
) -> Result:
    """Return a row for each arm: medians over the repeats.

    `flops` is the arithmetic that the work needs, by arm.
    """
    rows = {}
    for arm, runs in results.items():
        seconds = median(run["seconds"] for run in runs)
        rows[arm] = {
            "tokens_per_second": median(run["tokens"] / run["seconds"] for run in runs),
            "tokens_per_cpu_second": median(run["tokens"] / run["cpu_seconds"] for run in runs),
            "seconds": seconds,
            "peak_mib": median(run["peak_bytes"] for run in runs) / 2**20,
            "device": runs[0]["device"],
            "gflops": flops[arm] / seconds / 1e9,
            "blas_gflops": median(run["blas_gflops"] for run in runs),
        }
    return {
        "arms": rows,
        "threads": threads,
        "machine": platform.platform(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that take part."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def or_exit(prepare: Callable[..., Result], *given: Any) -> Result:
    """Return `prepare(*given)`; show an error that the user can fix without a traceback."""
    from offapi.errors import OffapiError

    try:
        return prepare(*given)
    except OffapiError as error:
        sys.exit(f"error: {error}")


def note(text: str) -> None:
    """Print progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def table(report: Result) -> str:
    """Format `report` for a person."""
    lines = [
        f"{'arm':18}{'tokens/s':>10}{'/cpu s':>9}{'s':>8}{'peak MiB':>10}"
        f"{'GFLOP/s':>9}{'of BLAS':>9}"
    ]
    for arm, row in report["arms"].items():
        share = f"{row['gflops'] / row['blas_gflops']:.0%}"
        lines.append(
            f"{arm:18}{row['tokens_per_second']:10.1f}{row['tokens_per_cpu_second']:9.1f}{row['seconds']:8.1f}"
            f"{row['peak_mib']:10.0f}{row['gflops']:9.1f}{share:>9}"
        )
    for peer, spreads in report["ratios"].items():
        lines.append(f"offapi : {peer}")
        for name, spread in spreads.items():
            goal = report["goals"].get(name)
            target = f", goal {goal}" if goal else ""
            lines.append(
                f"  {name:26} {spread['median']:.2f} ({spread['low']:.2f} to"
                f" {spread['high']:.2f}){target}"
            )
    named = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    device = next(iter(report["arms"].values()))["device"]
    lines.append(f"{device}, {report['threads']} threads, {report['machine']}; {named}")
    return "\n".join(lines)
