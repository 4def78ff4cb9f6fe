"""The top of a run's page: a sentence, and a few figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offapi.report import learning, run_facts
from offapi.report.accuracy import ALL, Rates
from offapi.report.render.table import text
from offapi.report.run_files import Look, Record, number
from offapi.text.display import duration, plural


@dataclass(frozen=True)
class Figure:
    """One of the few figures at the top."""

    name: str
    value: str
    note: str = ""


def lede(record: Record) -> str:
    """Return recipe, model, backend, steps and seed in a sentence."""
    config = record.config
    if record.recipe == "demo":
        return _demo(record)
    model = model_name(config.get("model", "demo"))
    backend = record.manifest.get("backend")
    how = f" on {text(backend)}" if backend else ""
    seed = f", seed {text(config['seed'])}" if "seed" in config else ""
    return f"Recipe {record.recipe}, {model}{how}, {plural(record.steps, 'step')}{seed}."


def _demo(record: Record) -> str:
    """Return what the demo did, and on how many test documents it is scored."""
    tested = len(record.answers[0].rows) if record.answers else 0
    scored = f", scored on {plural(tested, 'test document')}" if tested else ""
    learned = f"{plural(record.steps, 'step')}, seed {text(record.config.get('seed', 0))}"
    return (
        "The demo: a teacher labelled generated invoices and a student learned from its labels"
        f" ({learned}){scored}."
    )


def tested_figures(rates: Sequence[Rates]) -> list[Figure]:
    """Return the first two systems' accuracy on the test set, and what their prompts cost."""
    found = [all_right(one, f"all fields right, {one.name}") for one in rates[:2]]
    tokens = [number(one.cost.get("prompt_tokens")) for one in rates[:2]]
    if len(tokens) == 2 and tokens[0] and tokens[1]:
        note = f"{rates[0].name}, per document; {rates[1].name}: {_whole(tokens[1])}"
        found.append(Figure("prompt tokens", _whole(tokens[0]), note))
    return found


def _whole(value: float) -> str:
    return f"{int(value + 0.5):,}"


def figures(record: Record, rates: Sequence[Rates], look: Look | None) -> list[Figure]:
    """Return the accuracy, the held-out reward or the loss, and the steps."""
    found = []
    if rates:
        found.append(all_right(rates[0], "all fields right"))
        found.append(
            Figure("fields right", f"{100 * rates[0].mean:.1f}%", plural(rates[0].n, "document"))
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
        f"{100 * whole.mean:.1f}%",
        f"95% interval {100 * whole.low:.0f}% to {100 * whole.high:.0f}%",
    )


def model_name(model: object) -> str:
    """Return the last part of a path, or the name."""
    return text(model).rstrip("/").rsplit("/", 1)[-1]
