"""An estimate in words and tables for people. Left out: the figures themselves (`estimate`)."""

from __future__ import annotations

from collections.abc import Sequence

from offapi.cost.estimate import NAMES, NEVER, Case, Estimate, Spread
from offapi.cost.inputs import ASSUMED, BY_KEY

SHOWN = 6  # inputs of the sensitivity table

Rows = list[tuple[str, ...]]


def money(amount: float | None, currency: str) -> str:
    """As `$1,234`, `$12.30`, `$0.0042`."""
    if amount is None:
        return NEVER
    sign, size = "-" if amount < 0 else "", abs(amount)
    shown = (
        f"{size:,.0f}"
        if size >= 100
        else f"{size:.2f}"
        if size >= 0.1 or not size
        else f"{size:.2g}"
    )
    return f"{sign}{currency}{shown}"


def cost_table(found: Estimate) -> tuple[Sequence[str], Rows]:
    """Headers and rows: the first month part by part, 1,000
    requests, all the months together, where they meet.
    """
    currency, cases = found.inputs.currency, found.cases
    rows: Rows = [
        (part, *(money(case.parts[part], currency) for case in cases), "")
        for part in cases[0].parts
    ]
    spreads = [case.monthly for case in cases] + [found.api]
    single = [case.per_request for case in cases] + [found.api_per_request]
    totals = [case.total for case in cases] + [found.api_total]
    rows += [
        ("the first month", *(money(one.likely, currency) for one in spreads)),
        ("  5% to 95%", *(_span(one, currency) for one in spreads)),
        (
            "  cheaper than the API in",
            *(f"{100 * case.cheaper_at_first:.0f}% of draws" for case in cases),
            "",
        ),
        (
            "  break-even, requests a month",
            *(_count(case.break_even_requests.likely) for case in cases),
            "",
        ),
        ("    5% to 95%", *(_counts(case.break_even_requests) for case in cases), ""),
        ("  1,000 requests", *(money(1000 * (one.likely or 0.0), currency) for one in single)),
        (f"all {_months(found)}", *(money(one.likely, currency) for one in totals)),
        ("  5% to 95%", *(_span(one, currency) for one in totals)),
        (
            "  cheaper than the API in",
            *(f"{100 * case.cheaper:.0f}% of draws" for case in cases),
            "",
        ),
        ("  break-even, month", *(_count(case.break_even_month.likely) for case in cases), ""),
        ("    5% to 95%", *(_counts(case.break_even_month) for case in cases), ""),
        (
            "  break-even, requests in the first",
            *(_count(case.break_even_start.likely) for case in cases),
            "",
        ),
        ("    5% to 95%", *(_counts(case.break_even_start) for case in cases), ""),
    ]
    return ("", *(case.name for case in cases), "API"), rows


def swing_table(found: Estimate) -> tuple[Sequence[str], Rows]:
    """Headers and rows: the inputs that weigh most, and what a month saves at their ends."""
    currency = found.inputs.currency
    rows: Rows = []
    for swing in found.swings[:SHOWN]:
        one = found.inputs.known[swing.key].range
        saved = ((one.low, swing.at_low), (one.high, swing.at_high))
        ends = (f"{end:,g}: {money(amount, currency)}" for end, amount in saved)
        rows.append((swing.key, *ends, "decides" if swing.decides else ""))
    return ("what weighs most", "saved a month at its low", "at its high", ""), rows


def input_table(found: Estimate) -> tuple[Sequence[str], Rows]:
    """Headers and rows: every input, and where it is
    from; those that were measured or given first.
    """
    known = sorted(found.inputs.known.items(), key=lambda item: item[1].source == ASSUMED)
    rows: Rows = [(key, one.range.text(), BY_KEY[key].unit, one.source) for key, one in known]
    followed = [row for row in BY_KEY.values() if row.follows and row.key not in found.inputs.known]
    if "seconds" in found.inputs.known:
        followed = [row for row in followed if row.key != "own_tokens"]
    rows += [(row.key, row.follows or "", row.unit, "") for row in followed]
    return ("input", "likely (low to high)", "unit", "from"), rows


def lines(found: Estimate) -> list[str]:
    """The verdict, case by case, and how it was reckoned."""
    said = [f"{_headline(found)}"]
    said += [f"  {NAMES[case.name]}: {_because(case, found)}" for case in found.cases]
    assumed = len(found.inputs.assumed())
    if assumed:
        said.append(
            f"{assumed} inputs are assumptions of offapi's, not yours: give those that weigh most."
        )
    if found.inputs.dated:
        said.append(f"Prices as of {found.inputs.dated}; nothing was fetched.")
    return said


def _headline(found: Estimate) -> str:
    over = f"over the task's {_months(found)}"
    if found.verdict == "stay on the API":
        return f"Stay on the API: {over} an own model costs more."
    if found.verdict == "cannot tell":
        deciding = [swing.key for swing in found.swings if swing.decides][:3]
        hangs = f" It hangs on {', '.join(deciding)}." if deciding else ""
        return f"Cannot tell which is cheaper {over}.{hangs}"
    paying = [NAMES[case.name] for case in found.cases if case.verdict == "pays"]
    return f"An own model pays {over}: on {', or '.join(paying)}."


def _because(case: Case, found: Estimate) -> str:
    if not case.fits:
        when = " in the fullest month" if case.most_machines > case.machines else ""
        return f"not enough, it would take {case.most_machines:.1f}{when}."
    month, start = case.break_even_month.likely, case.break_even_start.likely
    own, api = (money(one.likely, found.inputs.currency) for one in (case.total, found.api_total))
    paid = (
        f"paid back in month {month:.0f}"
        if month is not None
        else "not paid back while the task lives"
    )
    at = (
        f"from about {start:,.0f} requests in the first month"
        if start is not None
        else "at no volume"
    )
    draws = f"cheaper in {100 * case.cheaper:.0f}% of draws"
    said = f"{case.verdict} ({draws}; likely {own} against {api} at the API, {paid}; it pays {at})."
    return said + _first_month(case, found) + _whole_machines(case, found)


def _first_month(case: Case, found: Estimate) -> str:
    """The first month by itself, where it says something else than all of them together."""
    own, api = case.monthly.likely or 0.0, found.api.likely or 0.0
    if (own < api) == (case.break_even_month.likely is not None):
        return ""
    amounts = " against ".join(money(one, found.inputs.currency) for one in (own, api))
    return f" The first month by itself is {'cheaper' if own < api else 'dearer'}: {amounts}."


def _whole_machines(case: Case, found: Estimate) -> str:
    if case.machines <= 1:
        return ""
    dearer = money(case.whole_machines, found.inputs.currency)
    return f" It takes {case.machines:.1f} machines; whole ones would cost {dearer} a month."


def _months(found: Estimate) -> str:
    horizon = found.inputs.known["horizon_months"].range
    return f"{'likely ' if horizon.uncertain else ''}{horizon.likely:g} months"


def _span(one: Spread, currency: str) -> str:
    return f"{money(one.low, currency)} to {money(one.high, currency)}"


def _count(value: float | None) -> str:
    return NEVER if value is None else f"{value:,.0f}"


def _counts(one: Spread) -> str:
    return NEVER if one.low is None else f"{_count(one.low)} to {_count(one.high)}"
