"""Time `rollout` of this checkout against that of another one, such as the one before the engine.

Both get the same random prompts, which share a prefix, and must draw the same tokens: greedy, and
groups of samples that end at different lengths. Left out: what only an engine can do.

    \b
    git worktree add ../before 5e131a5
    python scripts/bench/engine.py ../before
    python scripts/bench/engine.py ../before --model tiny --backend mlx --repeats 9
"""

from __future__ import annotations

import random
import sys
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import click
import orjson
import pairs
from pairs import Clock, Result, finish

ROOT = Path(__file__).parents[2]
GOALS = {"tokens_per_second_by_cpu": 0.98}


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.argument(
    "before", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False
)
@click.option(
    "--backend",
    type=click.Choice(["torch", "mlx"]),
    default="torch",
    show_default=True,
    help="Backend to measure.",
)
@click.option(
    "--model",
    default="demo",
    show_default=True,
    help="Model in the store, its folder, or `tiny` for the tests' model of two layers.",
)
@click.option("--prompts", "count", default=16, show_default=True, help="Number of prompts.")
@click.option("--tokens", "limit", default=32, show_default=True, help="Tokens per completion.")
@click.option("--rounds", default=1, show_default=True, help="Rollouts of each kind in a run.")
@click.option("--repeats", default=5, show_default=True, help="Pairs of runs.")
@click.option("--threads", default=1, show_default=True, help="CPU threads of either arm.")
@click.option("--json", "as_json", is_flag=True, help="Print one object on stdout.")
@click.option("--child", nargs=2, hidden=True)
def main(
    before: Path | None,
    backend: str,
    model: str,
    count: int,
    limit: int,
    rounds: int,
    repeats: int,
    threads: int,
    as_json: bool,
    child: tuple[str, str] | None,
) -> None:
    if child is not None:
        return run(child[0], Path(child[1]))
    if before is None:
        raise click.UsageError("name the other checkout.")
    with tempfile.TemporaryDirectory() as folder:
        work = {
            "before": str(before.resolve()),
            "backend": backend,
            "model": str(find(model, Path(folder))),
            "count": count,
            "limit": limit,
            "rounds": rounds,
        }
        results = pairs.interleave(__file__, ("now", "before"), repeats, work, threads)
    drawn = [each["drawn"] for runs in results.values() for each in runs]
    if any(each != drawn[0] for each in drawn):
        pairs.note("error: the arms drew different tokens.")
        sys.exit(3)
    report = pairs.summary(results, threads, dict.fromkeys(results, 0.0))
    report |= {
        "ratios": {"before": pairs.ratios(results["now"], results["before"], "tokens_per_second")},
        "goals": GOALS,
    }
    print(orjson.dumps(report).decode() if as_json else pairs.table(report))


def find(model: str, folder: Path) -> Path:
    """Return the folder of a model; the tiny one is written into `folder`."""
    if model == "tiny":
        sys.path.insert(0, str(ROOT / "tests" / "support"))
        import tiny_llama

        return tiny_llama.write(folder / "tiny")
    from offapi.models.store import get

    return Path(model) if Path(model).is_dir() else get(model).path


def import_from(checkout: Path) -> None:
    """Let `offapi` and its backends be those of `checkout`, wherever offapi is installed from."""
    for name, folder in (("offapi", "offapi"), ("offapi.backends", "backends")):
        path = checkout / folder
        spec = spec_from_file_location(
            name, path / "__init__.py", submodule_search_locations=[str(path)]
        )
        if spec is None or spec.loader is None:
            sys.exit(f"error: {path} has no package.")
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])


def run(arm: str, folder: Path) -> None:
    """Run one arm, in the child process, after a warm-up."""
    work = orjson.loads((folder / "work.json").read_bytes())
    import_from(ROOT if arm == "now" else Path(work["before"]))
    from offapi.backend import Sampling, load
    from offapi.model_spec import ModelSpec

    backend = load(work["backend"], ModelSpec(path=Path(work["model"])))
    prompts = prompts_of(work)
    kinds = [
        (prompts, 1, Sampling(work["limit"], ())),
        (prompts[::4], 4, Sampling(work["limit"], tuple(range(0, 256, 40)), 1.0, seed=5)),
    ]
    for asked, n, sampling in kinds:
        list(backend.rollout(asked[:2], n, sampling))
    clock = Clock("cpu" if backend.device == "cpu" else backend.device)
    drawn: list[list[int]] = []
    clock.start()
    for _ in range(work["rounds"]):
        for asked, n, sampling in kinds:
            groups = {g.prompt: g.completions for g in backend.rollout(asked, n, sampling)}
            drawn += [list(c.tokens) for i in range(len(asked)) for c in groups[i]]
    clock.stop()
    finish(folder, clock, sum(map(len, drawn)), drawn=drawn)


def prompts_of(work: Result) -> list[list[int]]:
    """Return prompts of 60 shared tokens and 10 to 60 of their own."""
    draw = random.Random(3)
    shared = [draw.randrange(256) for _ in range(60)]
    return [
        shared + [draw.randrange(256) for _ in range(draw.randrange(10, 60))]
        for _ in range(work["count"])
    ]


if __name__ == "__main__":
    main()
