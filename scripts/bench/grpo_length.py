"""Does GRPO move SmolLM2-135M from its base? Texts are rewarded by their length in tokens alone.

The target is 32 tokens. There are several seeds, and lr 0 as the control that must not move. Before
and after are greedy answers to 48 prompts that are not trained on.

    python scripts/bench/grpo_length.py OUT --backend torch --seeds 3
"""

from __future__ import annotations

from pathlib import Path

import click
import orjson
from grpo_invoices import train

from offapi.data import documents
from offapi.data.documents import Document

TASK = Path(__file__).with_name("grpo_length_task.py").absolute()
KINDS = (
    "a small",
    "an old",
    "a quiet",
    "the best",
    "a strange",
    "the last",
    "a modern",
    "my first",
)
THINGS = (
    *("garden", "river", "bakery", "teacher", "bridge", "library", "market", "winter"),
    *("machine", "island", "kitchen", "violin", "forest", "station", "doctor", "museum"),
    *("harbour", "painter", "village", "compass"),
)


@click.command()
@click.argument("out_folder", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--backend", default="torch", show_default=True, help="Backend to train with.")
@click.option("--seeds", default=3, show_default=True, help="Number of GRPO runs.")
@click.option("--lr", default="4e-4", show_default=True, help="Learning rate of GRPO.")
@click.option("--epochs", default=1.5, show_default=True, help="Passes over the documents.")
@click.option("--set", "overrides", multiple=True, help="Key of the GRPO recipe, as key=value.")
def main(
    out_folder: Path, backend: str, seeds: int, lr: str, epochs: float, overrides: tuple[str, ...]
) -> None:
    """Train every arm, and print the reward before and after."""
    out = out_folder.absolute()
    out.mkdir(parents=True, exist_ok=True)
    rows = [Document(f"{kind} {thing}", f"{kind} {thing}") for thing in THINGS for kind in KINDS]
    documents.write(out / "train.jsonl", rows[:112])
    documents.write(out / "val.jsonl", rows[112:])
    keys = {
        "recipe": "grpo",
        "task": TASK,
        "data": out / "train.jsonl",
        "val": out / "val.jsonl",
        "out": out,
    }
    keys |= {"model": "demo", "epochs": epochs, "eval_every": 14, "warmup_steps": 4}
    arms: list[tuple[str, dict[str, object]]]
    arms = [(f"length-{backend}-{seed}", {"seed": seed, "lr": float(lr)}) for seed in range(seeds)]
    arms += [(f"length-lr0-{backend}", {"seed": 0, "lr": 0.0, "epochs": epochs / 3})]
    for name, more in arms:
        train(out / f"{name}.toml", backend, {**keys, **more, "name": name}, overrides)
    for name, _ in arms:
        lines = (out / name / "metrics.jsonl").read_bytes().splitlines()
        rewards = [
            (metrics["step"], round(metrics["heldout/reward"], 3))
            for metrics in map(orjson.loads, lines)
            if "heldout/reward" in metrics
        ]
        learned = (out / name / "learned.json").read_text()
        click.echo(f"{name}: held-out reward by step {rewards}; {learned}")


if __name__ == "__main__":
    main()
