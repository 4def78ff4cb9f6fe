"""An estimate in words and tables for people. Left out: the figures themselves (`estimate`)."""

from __future__ import annotations

from collections.abc import Sequence

from offapi.costing.estimate import NAMES, NEVER, Case, Estimate, Spread
from offapi.costing.inputs import ASSUMED, BY_KEY

SHOWN = 6  # inputs of the sensitivity table

Rows = list[tuple[str, ...]]


def money(amount: float | None, currency: str) -> str:
    """As `$1,234`, `$12.30`, `$0.0042`."""
    if amount is None:
        return NEVER
    sign, size = "-" if amount < 0 else "", abs(amount)
    shown = f"{size:,.0f}" if size >= 100 else f"{size:.2f}" if size >= 0.1 or not size else f"{size:.2g}"
    return f"{sign}{currency}{shown}"


def cost_table(found: Estimate) -> tuple[Sequence[str], Rows]:
    """Headers and rows: what a month costs, part by part, and what 1,000 requests do."""
    currency, cases = found.inputs.currency, found.cases
    rows: Rows = [(part, *(money(case.parts[part], currency) for case in cases), "") for part in cases[0].parts]
    spreads = [case.monthly for case in cases] + [found.api]
    single = [case.per_request for case in cases] + [found.api_per_request]
    rows += [
        ("a month", *(money(one.likely, currency) for one in spreads)),
        ("  5% to 95%", *(_span(one, currency) for one in spreads)),
        ("1,000 requests", *(money(1000 * (one.likely or 0.0), currency) for one in single)),
        ("break-even, requests a month", *(_count(case.break_even_requests.likely) for case in cases), ""),
        ("  5% to 95%", *(_counts(case.break_even_requests) for case in cases), ""),
        ("break-even, month", *(_count(case.break_even_month.likely) for case in cases), ""),
        ("  5% to 95%", *(_counts(case.break_even_month) for case in cases), ""),
        ("cheaper than the API in", *(f"{100 * case.cheaper:.0f}% of draws" for case in cases), ""),
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
    """Headers and rows: every input, and where it is from; those that were measured or given first."""
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
        said.append(f"{assumed} inputs are assumptions of offapi's, not yours: give those that weigh most.")
    if found.inputs.dated:
        said.append(f"Prices as of {found.inputs.dated}; nothing was fetched.")
    return said


def _headline(found: Estimate) -> str:
    if found.verdict == "stay on the API":
        return "Stay on the API: at this volume an own model costs more."
    if found.verdict == "cannot tell":
        deciding = [swing.key for swing in found.swings if swing.decides][:3]
        hangs = f" It hangs on {', '.join(deciding)}." if deciding else ""
        return f"Cannot tell which is cheaper.{hangs}"
    paying = [NAMES[case.name] for case in found.cases if case.verdict == "pays"]
    return f"An own model pays: on {', or '.join(paying)}."


def _because(case: Case, found: Estimate) -> str:
    if not case.fits:
        return f"not enough, it would take {case.machines:.1f}."
    draws = f"cheaper in {100 * case.cheaper:.0f}% of draws"
    meets = case.break_even_requests.likely
    at = f"from about {meets:,.0f} requests a month" if meets is not None else "at no volume"
    month = case.break_even_month.likely
    paid = f", paid back in month {month:.0f}" if month is not None else ", not paid back while the task lives"
    whole = ""
    if case.machines > 1:
        dearer = money(case.whole_machines, found.inputs.currency)
        whole = f" It takes {case.machines:.1f} machines; whole ones would cost {dearer} a month."
    return f"{case.verdict} ({draws}; likely {at}{paid}).{whole}"


def _span(one: Spread, currency: str) -> str:
    return f"{money(one.low, currency)} to {money(one.high, currency)}"


def _count(value: float | None) -> str:
    return NEVER if value is None else f"{value:,.0f}"


def _counts(one: Spread) -> str:
    return NEVER if one.low is None else f"{_count(one.low)} to {_count(one.high)}"
