"""The top of a run's page: a sentence, and a few figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offapi.report import learning, run_facts
from offapi.report.accuracy import ALL, Rates
from offapi.report.render.table import text
from offapi.report.run_files import Look, Record
from offapi.text.display import duration


@dataclass(frozen=True)
class Figure:
    """One of the few figures at the top."""

    name: str
    value: str
    note: str = ""


def lede(record: Record) -> str:
    """Return recipe, model, backend, steps and seed in a sentence."""
    config = record.config
    model = model_name(config.get("model", "demo"))
    backend = record.manifest.get("backend")
    how = f" on {text(backend)}" if backend else ""
    seed = f", seed {text(config['seed'])}" if "seed" in config else ""
    return f"Recipe {record.recipe}, {model}{how}, {record.steps:,} steps{seed}."


def figures(record: Record, rates: Sequence[Rates], look: Look | None) -> list[Figure]:
    """Return the accuracy, the held-out reward or the loss, and the steps."""
    found = []
    if rates:
        found.append(all_right(rates[0], "all fields right"))
        found.append(
            Figure("fields right", f"{100 * rates[0].mean:.1f} %", f"{rates[0].n} documents")
        )
    rewards = (
        [row["reward"] for row in look.rows if isinstance(row.get("reward"), int | float)]
        if look
        else []
    )
    if look and rewards:
        found.append(
            Figure("held-out reward", f"{sum(rewards) / len(rewards):.3f}", f"at step {look.step}")
        )
    losses = [y for _, y in learning.points(record.metrics, learning.LOSS) if y is not None]
    if losses and not rewards:
        last = losses[-max(1, len(losses) // 20) :]
        found.append(Figure("final loss", f"{sum(last) / len(last):.3f}", f"from {losses[0]:.3f}"))
    seconds = run_facts.seconds_taken(record)
    found.append(Figure("steps", f"{record.steps:,}", f"in {duration(seconds)}" if seconds else ""))
    return found


def all_right(rates: Rates, name: str) -> Figure:
    """Return the share of documents with all fields right."""
    whole = rates.fields[ALL]
    return Figure(
        name,
        f"{100 * whole.mean:.1f} %",
        f"{100 * whole.low:.0f} to {100 * whole.high:.0f} % (95%)",
    )


def model_name(model: object) -> str:
    """Return the last part of a path, or the name."""
    return text(model).rstrip("/").rsplit("/", 1)[-1]
