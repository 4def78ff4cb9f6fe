"""The promise holds at its rate: 120 calibrations from populations whose errors are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offapi.calibrate.fit import FittedPromise, ReviewedAnswer, fit_promise
from offapi.confidence.promise import WHOLE
from offapi.confidence.signals import FEATURES, FieldSignals, features

DRAWS, DELTA, ERROR = 120, 0.05, 0.1
MOST = 12  # of 120 draws that may break a promise that breaks in 5%: the 99% quantile
NAMES = ("vendor", "date", "total")


@dataclass(frozen=True)
class Population:
    """All documents: signals, features (D, F) and what is right, by field."""

    answers: list[ReviewedAnswer]
    table: dict[str, NDArray[np.float64]]
    right: dict[str, NDArray[np.bool_]]

    def errors(self, fitted: FittedPromise) -> dict[str, float]:
        """Return each field's true share of wrong answers among the accepted; 0 where none are."""
        chances = {
            name: fitted.fields[name].model.probabilities(self.table[name]) for name in NAMES
        }
        taken = {name: _taken(chances[name], fitted.fields[name].values.at) for name in NAMES}
        taken[WHOLE] = _taken(np.prod(list(chances.values()), axis=0), fitted.whole.at)
        right = self.right | {WHOLE: np.all(list(self.right.values()), axis=0)}
        return {
            name: float((~right[name][taken[name]]).mean()) if taken[name].any() else 0.0
            for name in taken
        }


def _taken(chances: NDArray[np.float64], at: float | None) -> NDArray[np.bool_]:
    return chances >= (2.0 if at is None else at)


def make_population(seed: int, intercept: float, slope: float, size: int = 5000) -> Population:
    """Draw documents whose log-odds of being right are `intercept` + `slope` * a hidden ease."""
    draw = np.random.default_rng(seed)
    signals, right = {}, {}
    for name in NAMES:
        ease = draw.normal(size=size)
        right[name] = draw.random(size) < 1 / (1 + np.exp(-(intercept + slope * ease)))
        signals[name] = [_signals(draw, each if slope else 0.0) for each in ease]
    answers = [
        ReviewedAnswer(
            str(i),
            {name: signals[name][i] for name in NAMES},
            {name: bool(right[name][i]) for name in NAMES},
        )
        for i in range(size)
    ]
    table = {name: np.array([features(each) for each in signals[name]]) for name in NAMES}
    return Population(answers, table, right)


def _signals(draw: np.random.Generator, ease: float) -> FieldSignals:
    """Return noisy signals of a document."""
    noise = draw.normal(size=5)
    least = -float(np.exp(-ease + 0.5 * noise[0]))
    return FieldSignals(
        sum_logprob=least * (1.5 + 0.2 * abs(noise[1])),
        mean_logprob=least / 3,
        least_logprob=least,
        margin=float(3 + 2 * ease + noise[2]),
        runner_up=float(noise[4]),
        agreement=bool(draw.random() < 1 / (1 + np.exp(-2 - ease))),
        checks=float(draw.integers(0, 3)) / 2,
        occurrences=int(draw.integers(0, 4)),
        place=float(draw.random()),
    )


def broken_and_accepted(population: Population, documents: int) -> tuple[int, float]:
    """Return how many calibrations break a promise, and how often a field was promised."""
    draw = np.random.default_rng(1)
    broken = promised = 0
    for _ in range(DRAWS):
        drawn = draw.choice(len(population.answers), documents, replace=False)
        fitted = fit_promise([population.answers[i] for i in drawn], ERROR, DELTA)
        broken += max(population.errors(fitted).values()) > ERROR
        promised += sum(each.values.at is not None for each in fitted.fields.values())
    return broken, promised / DRAWS / len(NAMES)


def test_signals_without_meaning_break_no_more_promises_than_stated() -> None:
    population = make_population(0, intercept=2.0, slope=0.0)
    assert all((~right).mean() > ERROR for right in population.right.values())
    broken, _ = broken_and_accepted(population, 160)
    assert broken <= MOST


def test_signals_with_meaning_accept_much_and_keep_the_promise() -> None:
    broken, promised = broken_and_accepted(make_population(1, intercept=4.0, slope=3.0), 160)
    assert broken <= MOST
    assert promised > 0.5


def test_features_are_all_drawn() -> None:
    table = make_population(0, 2.0, 0.0, size=50).table["date"]
    assert table.shape == (50, len(FEATURES))
    assert (table.std(axis=0) > 0).sum() == len(FEATURES) - 1  # but for is_null
