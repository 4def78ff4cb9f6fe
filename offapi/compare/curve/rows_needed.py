"""How many rows an accuracy needs: those measured, more by the curve, or that none will be enough.

Nothing is claimed beyond four times the rows there are, nor where the law does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf
from typing import Literal

from offapi.compare.curve.power_law import Curve
from offapi.stats.interval import wilson

FAR = 4  # times the rows there are: the end of extrapolation

Kind = Literal["there", "more", "beyond", "never", "misfit"]


@dataclass(frozen=True)
class RowsNeeded:
    """The total rows for the accuracy `want`, with a 95% range; None beyond `FAR`."""

    want: float
    kind: Kind
    rows: float | None
    low: float | None
    high: float | None
    text: str


def rows_needed(curve: Curve, want: float, what: str = "rows") -> RowsNeeded:
    """Return how many rows the accuracy `want` needs, or that more rows will not reach it."""
    goal, reached = f"{100 * want:.0f}%", curve.reached(want)
    if reached is not None:
        return _there(curve, want, reached, f"{reached[0]:.0f} {what} are enough for {goal}")
    if curve.misfit is not None:
        return RowsNeeded(want, "misfit", None, None, None, curve.misfit)
    have, far = curve.have, FAR * curve.have
    here, there = curve.band(have), curve.band(far)
    rows = curve.law.need(want)
    low, high = _range([law.need(want) for law in curve.resampled])
    low, high = min(low, rows), max(high, rows)
    if here.mean >= want:
        return _there(
            curve, want, (have, here.mean), f"{have:.0f} {what} are enough for {goal} by the curve"
        )
    if there.high < want:
        text = (
            f"More data of this kind will not reach {goal}: {far:.0f} {what}, {FAR} times as many"
            f" as now, would give {100 * there.mean:.1f}"
            f" [{100 * there.low:.1f}–{100 * there.high:.1f}]%. Fix the labels or the task, or use"
            " a larger model."
        )
        return RowsNeeded(want, "never", None, None, None, text)
    if rows > far:
        least = f" (at least {_round(low - have)} more)" if have < low <= far else ""
        text = (
            f"Cannot tell how many {what} {goal} needs: by the curve more than {FAR} times as many"
            f" as now{least}, too far to extrapolate. With {far:.0f} {what} expect"
            f" {there.percent()}%; estimate again then."
        )
        return RowsNeeded(want, "beyond", None, _within(low, far), None, text)
    most = f"{_round(high - have)}" if high <= far else f"more than {_round(far - have)}"
    text = (
        f"About {_round(rows - have)} more {what} for {goal} (95% range:"
        f" {_round(max(low - have, 0))} to {most}), in addition to the {have:.0f} there are."
    )
    return RowsNeeded(want, "more", rows, low, _within(high, far), text)


def _there(curve: Curve, want: float, reached: tuple[float, float], text: str) -> RowsNeeded:
    """Return that the rows of `reached` are enough, and how low the accuracy may be."""
    rows, mean = reached
    far = FAR * curve.have
    low, high = _range([law.need(want) for law in curve.resampled])
    least = (
        wilson(round(mean * curve.documents), curve.documents).low
        if curve.misfit
        else curve.band(rows).low
    )
    surely = "" if least >= want else f", though it may be as low as {100 * least:.1f}%"
    text = f"{text}: they give {100 * mean:.1f}%{surely}."
    return RowsNeeded(
        want, "there", rows, _within(min(low, rows), far), _within(max(high, rows), far), text
    )


def _range(needs: Sequence[float]) -> tuple[float, float]:
    """Return the 2.5% and 97.5% quantiles of numbers that may be infinite."""
    ranked = sorted(needs)
    return ranked[int(0.025 * len(ranked))], ranked[min(int(0.975 * len(ranked)), len(ranked) - 1)]


def _within(rows: float, far: float) -> float | None:
    return None if isinf(rows) or rows > far else rows


def _round(rows: float) -> str:
    """Return two significant digits, which is more than is known."""
    return f"{float(f'{max(rows, 0):.2g}'):,.0f}"
