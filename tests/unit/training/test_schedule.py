"""Which rows a step learns from, and how the learning rate changes."""

import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from offapi.cli.init import SIZES
from offapi.config import load
from offapi.training.schedule import Schedule

SCHEDULE = Schedule(rows=10, batch_size=4, epochs=3.0, lr=1.0, warmup_steps=2, seed=5)


def test_every_epoch_visits_every_row_once_in_another_order() -> None:
    assert SCHEDULE.per_epoch == 3
    assert SCHEDULE.steps == 9
    rows = list(range(10))
    epochs = [
        [row for step in range(e * 3, e * 3 + 3) for row in SCHEDULE.batch_at(step, rows)]
        for e in range(3)
    ]
    assert all(sorted(epoch) == rows for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_step_depends_on_its_number_alone() -> None:
    again = Schedule(rows=10, batch_size=4, epochs=3.0, lr=1.0, warmup_steps=2, seed=5)
    assert again.batch_at(7, range(10)) == SCHEDULE.batch_at(7, range(10))


def test_the_rate_warms_up_then_falls_to_nearly_zero() -> None:
    rates = [SCHEDULE.lr_at(step) for step in range(SCHEDULE.steps)]
    assert rates[0] == pytest.approx(1 / 3)
    assert rates[2] == max(rates) == pytest.approx(7 / 9)
    assert rates[-1] == pytest.approx(1 / 9)


@pytest.mark.parametrize(
    ("recipe", "rows"),
    [
        ("sft", SIZES["train"]),
        ("distill", SIZES["train"] // 2),
        ("filtered_sft", 60),
        ("grpo", SIZES["train"]),
    ],
)
def test_initial_recipes_warm_up_for_at_most_a_tenth(recipe: str, rows: int) -> None:
    """For what `offapi init` writes, with the rows that the checks leave some."""
    path = Path(__file__).parents[3] / "recipes" / "configs" / f"{recipe}.toml"
    loaded = load.load(path, import_module(f"offapi.recipes.{recipe}").Config)
    assert 0 < 10 * loaded.warmup_steps <= loaded.schedule(rows).steps
    compared = tomllib.loads((path.with_name("compare.toml")).read_text())[recipe]
    assert (compared["epochs"], compared["warmup_steps"]) == (loaded.epochs, loaded.warmup_steps)
