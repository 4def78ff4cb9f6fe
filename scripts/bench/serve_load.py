"""Keep clients asking `offapi serve` for a while, and watch what it holds on to.

Each client sends the next question when it has an answer; half of them stream, and one in fifty
leaves in the middle. Memory, descriptors and threads are looked at every five seconds. Exits with
1 after an error, or if the server holds more in the last quarter of the time than in the third:
before that, all clients' prompts and what is kept of them fill the memory.

    \b
    python scripts/bench/serve_load.py --backend torch --clients 64 --seconds 300
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import click
import httpx2
import orjson
import pairs
import psutil
from serve_clients import PATIENCE, Answered, arms_of, ask, percentiles, questions, running

LOOK_SECONDS = 5.0
QUESTIONS = 256
MORE_MEMORY = 1.02  # of the last quarter to the third


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option("--model", default="demo", show_default=True, help="Model in the store, or folder.")
@click.option("--backend", type=click.Choice(["torch", "mlx"]), default="torch", show_default=True)
@click.option("--clients", default=64, show_default=True, help="Clients that ask.")
@click.option("--seconds", default=300.0, show_default=True, help="How long they ask.")
@click.option("--tokens", default=32, show_default=True, help="Most tokens of an answer.")
@click.option("--threads", default=1, show_default=True, help="CPU threads of the server.")
@click.option("--json", "as_json", is_flag=True, help="Print one object on stdout.")
def main(model: str, backend: str, as_json: bool, **given: float) -> None:
    from offapi.models.store import get

    folder = Path(model) if Path(model).is_dir() else get(model).path
    arm = arms_of(backend, folder, "")["offapi"]
    with running(arm, int(given["threads"])) as (url, process):
        report = asyncio.run(load(url, process, given))
    report |= {"asked": {"backend": backend, **given}, "versions": pairs.versions()}
    print(orjson.dumps(report).decode() if as_json else table(report))
    sys.exit(int(bool(report["errors"]) or not report["flat"]))


async def load(url: str, process: psutil.Process, given: dict[str, float]) -> pairs.Result:
    """Ask for the given time; return what was answered, and what the server held meanwhile."""
    asked, answers, looks = questions(0, QUESTIONS), list[Answered](), list[dict[str, float]]()
    began = time.monotonic()
    end = began + given["seconds"]

    async def client(number: int, http: httpx2.AsyncClient) -> None:
        at = number
        while time.monotonic() < end:
            body: dict[str, Any] = {
                "model": "m",
                "messages": asked[at % QUESTIONS],
                "max_tokens": int(given["tokens"]),
            }
            if at % 2:
                body |= {"stream": True, "stream_options": {"include_usage": True}}
            if at % 50 == 49:
                await leave(http, body)
            else:
                answers.append(await ask(http, body))
            at += int(given["clients"]) + 1

    async def look() -> None:
        while time.monotonic() < end:
            looks.append({"at": time.monotonic() - began, **held(process)})
            await asyncio.sleep(LOOK_SECONDS)

    limits = httpx2.Limits(max_connections=int(given["clients"]))
    async with httpx2.AsyncClient(
        base_url=url, limits=limits, timeout=PATIENCE, trust_env=False
    ) as http:
        clients = [client(number, http) for number in range(int(given["clients"]))]
        await asyncio.gather(look(), *clients)
        metrics = (await http.get("/metrics")).text
    looks.append({"at": time.monotonic() - began, **held(process)})
    return summary(answers, looks, metrics, time.monotonic() - began)


async def leave(http: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    """Begin to read a stream, and go away."""
    async with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
        async for _ in answer.aiter_bytes():
            return


def held(process: psutil.Process) -> dict[str, float]:
    """Return what a process holds now."""
    return {
        "mebibytes": process.memory_info().rss / 2**20,
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
    }


def summary(
    answers: list[Answered], looks: list[dict[str, float]], metrics: str, seconds: float
) -> pairs.Result:
    """Return counts, times, and whether what was held stayed the same."""
    errors = [each.error for each in answers if each.error]
    good = [each for each in answers if not each.error]
    early = [each for each in looks if 0.5 < each["at"] / seconds < 0.75] or looks[:1]
    late = [each for each in looks if each["at"] / seconds >= 0.75]
    names = ("mebibytes", "descriptors", "threads")
    most = {name: [max(each[name] for each in part) for part in (early, late)] for name in names}
    flat = most["mebibytes"][1] <= MORE_MEMORY * most["mebibytes"][0]
    flat = flat and all(most[name][1] <= most[name][0] for name in names[1:])
    rows = [line for line in metrics.splitlines() if line.startswith("offapi_live_rows ")]
    return {
        "answers": len(good),
        "errors": {each: errors.count(each) for each in sorted(set(errors))},
        "answers_per_second": len(good) / seconds,
        "tokens_per_second": sum(each.tokens for each in good) / seconds,
        "first_token_seconds": percentiles([e.first for e in good if not e.text]),
        "answer_seconds": percentiles([each.seconds for each in good]),
        "held": most,
        "flat": flat,
        "rows_left": float(rows[0].split()[-1]),
        "looks": looks,
    }


def table(report: pairs.Result) -> str:
    """Format `report` for a person."""
    lines = [
        f"{report['answers']} answers, errors {report['errors']},"
        f" {report['answers_per_second']:.2f} answers/s, {report['tokens_per_second']:.1f} tokens/s"
    ]
    for name in ("first_token_seconds", "answer_seconds"):
        times = ", ".join(f"{at} {value:.2f}" for at, value in report[name].items())
        lines.append(f"{name}: {times}")
    for name, (early, late) in report["held"].items():
        lines.append(f"{name}: {early:.0f} in the third quarter, {late:.0f} in the last")
    lines.append(f"flat: {report['flat']}, rows left: {report['rows_left']:.0f}")
    return "\n".join([*lines, f"{report['asked']}; {report['versions']}"])


if __name__ == "__main__":
    main()
