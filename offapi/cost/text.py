"""An estimate as sentences and tables for people. Left out: the figures themselves (`estimate`)."""

from __future__ import annotations

from collections.abc import Sequence

from offapi.cost.estimate import NAMES, NEVER, Case, Estimate, Spread
from offapi.cost.inputs import ASSUMED, BY_KEY, Range
from offapi.text.amounts import round_amount
from offapi.text.display import plural

SHOWN = 6  # inputs in the sensitivity table
WELL = 1.1  # the ratio of its ends up to which a figure is well known

Rows = list[tuple[str, ...]]


def money(amount: float | None, currency: str) -> str:
    """Format an amount as `$1,234`, `$12.30` or `$0.0042`."""
    if amount is None:
        return NEVER
    sign, size = "-" if amount < 0 else "", abs(amount)
    digits = ",.0f" if size >= 100 else ".2f" if size >= 0.1 or not size else ".2g"
    return f"{sign}{currency}{size:{digits}}"


def cost_table(estimate: Estimate) -> tuple[Sequence[str], Rows]:
    """Return headers and rows: the first month by part, all months together, the break-evens."""
    currency, cases = estimate.inputs.currency, estimate.cases
    rows: Rows = []
    for part in cases[0].parts:
        rows.append((part, *(money(case.parts[part], currency) for case in cases), ""))
    months = [*(case.monthly for case in cases), estimate.api]
    rows += _amount_rows("the first month", months, currency)
    rows.append(_share_row([case.cheaper_at_first for case in cases]))
    volumes = [case.break_even_requests for case in cases]
    rows += _count_rows("  break-even, requests a month", volumes)
    single = [*(case.per_request for case in cases), estimate.api_per_request]
    thousands = [money(1000 * (one.likely or 0.0), currency) for one in single]
    rows.append(("  per 1,000 requests", *thousands))
    totals = [*(case.total for case in cases), estimate.api_total]
    rows += _amount_rows(f"all {_months(estimate)}", totals, currency)
    rows.append(_share_row([case.cheaper for case in cases]))
    rows += _count_rows("  break-even, month", [case.break_even_month for case in cases])
    starts = [case.break_even_start for case in cases]
    rows += _count_rows("  break-even, requests in month 1", starts)
    return ("", *(case.name for case in cases), "API"), rows


def _amount_rows(name: str, spreads: Sequence[Spread], currency: str) -> Rows:
    likely = [money(spread.likely, currency) for spread in spreads]
    spans = [_span(spread, currency) for spread in spreads]
    return [(name, *likely), ("  5% to 95%", *spans)]


def _count_rows(name: str, spreads: Sequence[Spread]) -> Rows:
    """Return two rows, empty for the API, which has no break-even."""
    likely = [_about(spread) for spread in spreads]
    return [(name, *likely, ""), ("    5% to 95%", *map(_counts, spreads), "")]


def _share_row(shares: Sequence[float]) -> tuple[str, ...]:
    return ("  cheaper than the API in", *(f"{100 * share:.0f}% of draws" for share in shares), "")


def swing_table(estimate: Estimate) -> tuple[Sequence[str], Rows]:
    """Return headers and rows: the inputs that matter most, and the savings at their ends."""
    currency = estimate.inputs.currency
    rows: Rows = []
    for swing in estimate.swings[:SHOWN]:
        span = estimate.inputs.known[swing.key].range
        saved = ((span.low, swing.at_low), (span.high, swing.at_high))
        ends = (f"{end:,g}: {money(amount, currency)}" for end, amount in saved)
        rows.append((swing.key, *ends, "decides" if swing.decides else ""))
    return ("what matters most", "saves a month, if low", "saves a month, if high", ""), rows


def input_table(estimate: Estimate) -> tuple[Sequence[str], Rows]:
    """Return headers and rows: every input with its source, the measured or given ones first."""
    known = sorted(estimate.inputs.known.items(), key=lambda item: item[1].source == ASSUMED)
    rows: Rows = [
        (key, quantity.range.text(), BY_KEY[key].unit, quantity.source) for key, quantity in known
    ]
    followed = [
        row for row in BY_KEY.values() if row.follows and row.key not in estimate.inputs.known
    ]
    if "seconds" in estimate.inputs.known:
        followed = [row for row in followed if row.key != "own_tokens"]
    rows += [(row.key, row.follows or "", row.unit, "") for row in followed]
    return ("input", "likely (low to high)", "unit", "from"), rows


def lines(estimate: Estimate) -> list[str]:
    """Return the verdict, the reason for each case, and what was assumed."""
    text = [_headline(estimate)]
    text += [f"  {NAMES[case.name]}: {_because(case, estimate)}" for case in estimate.cases]
    assumed = len(estimate.inputs.assumed())
    if assumed:
        text.append(
            f"Assumed: {plural(assumed, 'input')} below. Replace those that matter most by your own"
            " figures."
        )
    if estimate.inputs.dated:
        text.append(f"Prices as of {estimate.inputs.dated}; nothing was fetched.")
    return text


def _headline(estimate: Estimate) -> str:
    over = f"over the task's {_months(estimate)}"
    if estimate.verdict == "stay on the API":
        return f"Stay on the API: your own model costs more {over}."
    if estimate.verdict == "cannot tell":
        deciding = [swing.key for swing in estimate.swings if swing.decides][:3]
        depends = f" It depends mostly on {', '.join(deciding)}." if deciding else ""
        return f"Cannot tell which is cheaper {over}.{depends}"
    paying = [NAMES[case.name] for case in estimate.cases if case.verdict == "pays"]
    return f"Your own model pays {over}, on {' or '.join(paying)}."


def _because(case: Case, estimate: Estimate) -> str:
    if not case.fits:
        when = " in the busiest month" if case.most_machines > case.machines else ""
        return f"not enough: {case.most_machines:.1f} machines are needed{when}."
    month, start = case.break_even_month.likely, case.break_even_start.likely
    own = money(case.total.likely, estimate.inputs.currency)
    api = money(estimate.api_total.likely, estimate.inputs.currency)
    paid = f"It is paid back in month {month:.0f}. " if month is not None else ""
    at = "It pays at no volume."
    if start is not None:
        grows = estimate.inputs.known["growth"].range != Range(0.0, 0.0, 0.0)
        when = "in the first month" if grows else "a month"
        at = f"It pays from about {_about(case.break_even_start)} requests {when}."
    draws = f"cheaper in {100 * case.cheaper:.0f}% of draws"
    own_verdict = "" if case.verdict == estimate.verdict else f"{case.verdict}: "
    text = f"{own_verdict}likely {own} against the API's {api}, {draws}. {paid}{at}"
    return text + _first_month(case, estimate) + _whole_machines(case, estimate)


def _first_month(case: Case, estimate: Estimate) -> str:
    """Return a sentence on the first month, if it differs from the verdict on the whole life."""
    own, api = case.monthly.likely or 0.0, estimate.api.likely or 0.0
    if (own < api) == (case.break_even_month.likely is not None):
        return ""
    amounts = (
        f"{money(own, estimate.inputs.currency)}, the API {money(api, estimate.inputs.currency)}"
    )
    return f" The first month alone is {'cheaper' if own < api else 'more expensive'}: {amounts}."


def _whole_machines(case: Case, estimate: Estimate) -> str:
    if case.machines <= 1:
        return ""
    whole = money(case.whole_machines, estimate.inputs.currency)
    return f" It needs {case.machines:.1f} machines; whole ones would cost {whole} a month."


def _months(estimate: Estimate) -> str:
    horizon = estimate.inputs.known["horizon_months"].range
    return f"{'likely ' if horizon.uncertain else ''}{horizon.likely:g} months"


def _span(spread: Spread, currency: str) -> str:
    return f"{money(spread.low, currency)} to {money(spread.high, currency)}"


def _count(value: float | None) -> str:
    return NEVER if value is None else f"{value:,.0f}"


def _about(spread: Spread, value: float | None = None) -> str:
    """Write a spread's likely figure, or one of its ends; two digits where it is not well known."""
    value = spread.likely if value is None else value
    if value is None:
        return NEVER
    known = spread.low is not None and spread.high is not None
    well = known and (spread.high or 0.0) <= WELL * (spread.low or 0.0)
    return _count(value if well else round_amount(value))


def _counts(spread: Spread) -> str:
    if spread.low is None:
        return NEVER
    high = NEVER if spread.high is None else _about(spread, spread.high)
    return f"{_about(spread, spread.low)} to {high}"
