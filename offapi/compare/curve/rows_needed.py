"""How many rows an accuracy takes: those measured already,
more of them by the curve, or that no number will do.

Beyond four times the rows there are, nothing is claimed; nothing at all where the law does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf
from typing import Literal

from offapi.compare.curve.power_law import Curve
from offapi.stats.interval import wilson

FAR = 4  # times the rows there are

Kind = Literal["there", "more", "beyond", "never", "misfit"]


@dataclass(frozen=True)
class RowsNeeded:
    """Rows in all for the accuracy `want`, with their
    95% range; None beyond four times what there is.
    """

    want: float
    kind: Kind
    rows: float | None
    low: float | None
    high: float | None
    text: str


def rows_needed(curve: Curve, want: float, what: str = "rows") -> RowsNeeded:
    """How many rows it takes to get `want` right, or that more of them will not do."""
    goal, reached = f"{100 * want:.0f}%", curve.reached(want)
    if reached is not None:
        return _there(curve, want, reached, f"{reached[0]:.0f} {what} are enough for {goal}")
    if curve.misfit is not None:
        return RowsNeeded(want, "misfit", None, None, None, curve.misfit)
    have, far = curve.have, FAR * curve.have
    here, there = curve.band(have), curve.band(far)
    rows = curve.law.need(want)
    low, high = _range([one.need(want) for one in curve.resampled])
    low, high = min(low, rows), max(high, rows)
    if here.mean >= want:
        return _there(
            curve, want, (have, here.mean), f"{have:.0f} {what} are enough for {goal} by the curve"
        )
    if there.high < want:
        text = (
            f"More data of this kind will not get you there: with {far:.0f} {what}, {FAR} times"
            f" what there is, {100 * there.mean:.1f}"
            f" [{100 * there.low:.1f}–{100 * there.high:.1f}]% would be right, not {goal}. Mend the"
            " labels or the task, or take a larger model."
        )
        return RowsNeeded(want, "never", None, None, None, text)
    if rows > far:
        least = f", and at least {_round(low - have)} more," if have < low <= far else ""
        text = (
            f"Cannot tell how many {what} {goal} takes: more than {FAR} times what there is by the"
            f" curve{least} and so far it cannot be extrapolated. With {far:.0f} {what} expect"
            f" {there.percent()}%; ask again then."
        )
        return RowsNeeded(want, "beyond", None, _within(low, far), None, text)
    most = f"{_round(high - have)}" if high <= far else f"more than {_round(far - have)}"
    text = (
        f"About {_round(rows - have)} more {what} for {goal}, {_round(max(low - have, 0))} to"
        f" {most} (95%), beside the {have:.0f} there are."
    )
    return RowsNeeded(want, "more", rows, low, _within(high, far), text)


def _there(curve: Curve, want: float, reached: tuple[float, float], text: str) -> RowsNeeded:
    """That it is there already with the rows of `reached`, and what it may be less."""
    rows, mean = reached
    far = FAR * curve.have
    low, high = _range([one.need(want) for one in curve.resampled])
    least = (
        wilson(round(mean * curve.documents), curve.documents).low
        if curve.misfit
        else curve.band(rows).low
    )
    surely = "" if least >= want else f", though it may be {100 * least:.1f}%"
    text = f"{text}: they give {100 * mean:.1f}%{surely}."
    return RowsNeeded(
        want, "there", rows, _within(min(low, rows), far), _within(max(high, rows), far), text
    )


def _range(needs: Sequence[float]) -> tuple[float, float]:
    """2.5% and 97.5% of numbers that may be infinite."""
    ranked = sorted(needs)
    return ranked[int(0.025 * len(ranked))], ranked[min(int(0.975 * len(ranked)), len(ranked) - 1)]


def _within(rows: float, far: float) -> float | None:
    return None if isinf(rows) or rows > far else rows


def _round(rows: float) -> str:
    """Two digits are more than is known."""
    return f"{float(f'{max(rows, 0):.2g}'):,.0f}"
