"""The charts of a run's metrics: how it learned, and for GRPO, how healthy it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from offapi.report.render.charts import SLOTS, Chart, Point, Series, smooth, thin
from offapi.report.run_files import Object, Record, number

RAW = "The thin line is every step, the thick one a moving average."
LOSS, LR, GRADIENT = "loss", "lr", "grad_norm"
REWARD, HELD, AUDIT = "reward", "heldout/reward", "heldout/audit"
CUT, FLAT = "completions/clipped_ratio", "frac_reward_zero_std"


def learning_charts(runs: Sequence[Record]) -> list[Chart]:
    """Return loss, learning rate and gradient over the steps, runs and their controls overlaid."""
    ways = [
        *runs,
        *(replace(run.control, name=f"{run.name}, control") for run in runs if run.control),
    ]
    found = [
        _overlaid(
            "Loss", LOSS, ways, "nats a token", zero=not _any_below_zero(ways, LOSS), rough=True
        ),
        replace(_overlaid("Learning rate", LR, ways), minor=True),
        replace(_overlaid("Gradient norm", GRADIENT, ways, rough=True), minor=True),
    ]
    return [chart for chart in found if chart.series]


def health_charts(runs: Sequence[Record]) -> list[Chart]:
    """Return the charts that show whether a GRPO run goes well; none for other recipes."""
    runs = [run for run in runs if _has_rewards(run)]
    if not runs:
        return []
    found = [
        _overlaid(
            "Reward in training",
            REWARD,
            runs,
            zero=False,
            share=_within_one(runs, (REWARD,)),
            rough=True,
        ),
        replace(
            _chart("On held-out documents", runs, {HELD: "reward", AUDIT: "audit"}, marks=True),
            zero=False,
            share=_within_one(runs, (HELD, AUDIT)),
            note=(
                "Training never sees the audit. If the reward rises and the audit does not, it is"
                " reward hacking."
            ),
        ),
        _parts(f"The audit of {runs[0].name}, part by part", runs[0], f"{AUDIT}/", marks=True),
        _parts(f"Each rewarded check, {runs[0].name}", runs[0], "rewards/", "/mean"),
        _overlaid("KL to the reference", "kl", runs, "nats a token", rough=True),
        _overlaid("Entropy of the sampling", "entropy", runs, "nats a token", rough=True),
        _chart("Length of completions", runs, _lengths(runs), unit="tokens"),
        replace(
            _chart("Cut off, and without signal", runs, {CUT: "cut off", FLAT: "no signal"}),
            share=True,
            note=(
                "Cut off: the share of completions that reach the token limit. No signal: the share"
                " of groups whose rewards are all equal."
            ),
        ),
    ]
    return [chart for chart in found if chart.series]


def series(
    name: str, points: Sequence[Point], slot: int, *, marks: bool = False, rough: bool = False
) -> Series:
    """Return a line through `points`; if `rough` and many, a moving average over them."""
    points = thin(points)
    if not rough or len(points) < 30:
        return Series(name, points, slot, marks)
    return Series(name, smooth(points), slot, marks, points)


def points(rows: Iterable[Object], key: str) -> list[Point]:
    """Return the values of `key` by step; None where the logged value is not a number."""
    found = ((number(row.get("step")), row[key]) for row in rows if key in row)
    return [(step, number(value)) for step, value in found if step is not None]


def _has_rewards(run: Record) -> bool:
    return any(REWARD in row or HELD in row for row in run.metrics)


def _overlaid(
    title: str,
    key: str,
    runs: Sequence[Record],
    unit: str = "",
    *,
    zero: bool = True,
    share: bool = False,
    rough: bool = False,
) -> Chart:
    made = [(run.name, points(run.metrics, key)) for run in runs]
    lines = [
        series(name, found, slot, rough=rough)
        for slot, (name, found) in enumerate(made[:SLOTS])
        if found
    ]
    note = RAW if any(one.raw for one in lines) else ""
    return Chart(title, tuple(lines), unit, zero=zero, share=share, note=note)


def _chart(
    title: str, runs: Sequence[Record], keys: dict[str, str], *, unit: str = "", marks: bool = False
) -> Chart:
    """Return several metrics of several runs in one chart, as many as are distinguishable."""
    made: list[Series] = []
    for run in runs:
        for key, name in keys.items():
            found = points(run.metrics, key)
            if found and len(made) < SLOTS:
                made.append(
                    series(
                        f"{run.name}, {name}" if len(runs) > 1 else name,
                        found,
                        len(made),
                        marks=marks,
                    )
                )
    return Chart(title, tuple(made), unit)


def _parts(title: str, run: Record, start: str, end: str = "", *, marks: bool = False) -> Chart:
    """Return a line for each metric with this start and end; none if there is only one."""
    names = dict.fromkeys(
        key for row in run.metrics for key in row if key.startswith(start) and key.endswith(end)
    )
    keys = {key: key.removeprefix(start).removesuffix(end) for key in names}
    chart = _chart(title, [run], keys, marks=marks)
    chart = replace(chart, share=_within_one([run], tuple(keys)), zero=False)
    return chart if len(keys) > 1 else replace(chart, series=())


def _lengths(runs: Sequence[Record]) -> dict[str, str]:
    kinds = ("mean", "min", "max") if len(runs) == 1 else ("mean",)
    return {f"completions/{kind}_length": kind for kind in kinds}


def _values(runs: Sequence[Record], keys: Sequence[str]) -> list[float]:
    return [y for run in runs for key in keys for _, y in points(run.metrics, key) if y is not None]


def _within_one(runs: Sequence[Record], keys: Sequence[str]) -> bool:
    return all(0 <= y <= 1 for y in _values(runs, keys))


def _any_below_zero(runs: Sequence[Record], key: str) -> bool:
    return any(y < 0 for y in _values(runs, (key,)))
