"""Compare the throughput of `offapi serve` with mlx_lm.server, or with `transformers serve`.

All servers hold the same model and run at the same time; they are asked in turn, the same new
questions in each round, greedy, whole answers. The ratios are of neighbouring runs. Left out:
streams and latencies, which `serve_load` measures.

    \b
    python scripts/bench/serve.py --backend mlx
    python scripts/bench/serve.py --backend torch --peers FOLDER-WITH-FASTAPI
    python scripts/bench/serve.py --backend torch --clients 1 --requests 4
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import orjson
import pairs
import psutil
from serve_clients import Arm, Body, arms_of, ask_all, questions, running

GOAL = 1.5


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option("--model", default="demo", show_default=True, help="Model in the store, or folder.")
@click.option("--backend", type=click.Choice(["torch", "mlx"]), default="torch", show_default=True)
@click.option("--clients", default=16, show_default=True, help="Requests in flight.")
@click.option("--requests", default=32, show_default=True, help="Requests of an arm in a round.")
@click.option("--tokens", default=64, show_default=True, help="Most tokens of an answer.")
@click.option("--repeats", default=5, show_default=True, help="Rounds.")
@click.option("--threads", default=1, show_default=True, help="CPU threads of each server.")
@click.option("--peers", default="", help="Folder with `transformers serve`'s further packages.")
@click.option("--only", default="", help="Name of the one arm to compare with.")
@click.option("--json", "as_json", is_flag=True, help="Print one object on stdout.")
def main(model: str, backend: str, peers: str, only: str, as_json: bool, **given: int) -> None:
    from offapi.models.store import get

    folder = Path(model) if Path(model).is_dir() else get(model).path
    arms = arms_of(backend, folder, peers)
    arms = {name: arm for name, arm in arms.items() if not only or name in ("offapi", only)}
    results = measure(arms, given)
    report: dict[str, Any] = {
        "arms": {name: summary(runs) for name, runs in results.items()},
        "ratios": {
            name: pairs.ratios(results["offapi"], runs, "tokens_per_second")
            for name, runs in results.items()
            if name != "offapi"
        },
        "goal": GOAL,
        "asked": {"backend": backend, **given},
        "versions": pairs.versions(),
    }
    print(orjson.dumps(report).decode() if as_json else table(report))


def measure(arms: dict[str, Arm], given: dict[str, int]) -> dict[str, list[pairs.Result]]:
    """Return each arm's rounds, after one that is not counted."""
    results: dict[str, list[pairs.Result]] = {name: [] for name in arms}
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(running(arm, given["threads"])) for name, arm in arms.items()
        }
        for turn in range(given["repeats"] + 1):
            asked = questions(turn * given["requests"], given["requests"])
            for name, (url, process) in servers.items():
                body: Body = {
                    "model": arms[name].model,
                    "temperature": 0,
                    "max_tokens": given["tokens"],
                }
                bodies = [{**body, "messages": messages} for messages in asked]
                result = one_round(url, process, bodies, given["clients"])
                pairs.note(
                    f"{turn}/{given['repeats']} {name}: {result['seconds']:.1f} s,"
                    f" {result['tokens'] / result['seconds']:.1f} tokens/s"
                )
                if turn:
                    results[name].append(result)
    return results


def one_round(url: str, process: psutil.Process, bodies: list[Body], clients: int) -> pairs.Result:
    """Ask one server everything; return its seconds, tokens and memory."""
    cpu, began = cpu_seconds(process), time.perf_counter()
    answers = asyncio.run(ask_all(url, bodies, clients))
    seconds = time.perf_counter() - began
    failed = [each.error for each in answers if each.error]
    if failed:
        sys.exit(f"error: {len(failed)} of {len(bodies)} requests failed: {failed[0]}")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds(process) - cpu,
        "tokens": sum(each.tokens for each in answers),
        "peak_bytes": process.memory_info().rss,
    }


def cpu_seconds(process: psutil.Process) -> float:
    """Return the processor seconds that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def summary(runs: list[pairs.Result]) -> pairs.Result:
    """Return an arm's speeds over all rounds."""
    tokens, seconds = (sum(run[name] for run in runs) for name in ("tokens", "seconds"))
    return {
        "tokens_per_second": tokens / seconds,
        "tokens_per_cpu_second": tokens / sum(run["cpu_seconds"] for run in runs),
        "seconds_a_round": seconds / len(runs),
        "mebibytes": runs[-1]["peak_bytes"] / 2**20,
    }


def table(report: dict[str, Any]) -> str:
    """Format `report` for a person."""
    lines = [
        f"{name:22} {arm['tokens_per_second']:8.1f} tokens/s {arm['tokens_per_cpu_second']:8.1f}"
        f" tokens per CPU s {arm['mebibytes']:8.0f} MiB"
        for name, arm in report["arms"].items()
    ]
    for name, ratios in report["ratios"].items():
        lines += [
            f"  to {name}, {unit}: {each['median']:.2f} ({each['low']:.2f} to {each['high']:.2f})"
            for unit, each in ratios.items()
        ]
    return "\n".join([*lines, f"goal {report['goal']}; {report['asked']}; {report['versions']}"])


if __name__ == "__main__":
    main()
