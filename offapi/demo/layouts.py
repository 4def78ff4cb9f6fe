"""The layouts of the pages: each function takes facts and returns lines.

Each has traps: a subtotal above the total, a due date next to the date, cash given and change, a
customer's name. The first ten are for all splits, the rest for test alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from offapi.demo.draw import RandomStream
from offapi.demo.facts import Facts

Layout = Callable[[Facts, RandomStream], list[str]]


def _extra(f: Facts, name: str) -> list[str]:
    return [f"{name}: {f.money(f.extra)}"] if f.extra else []


def _tax(f: Facts, name: str) -> list[str]:
    return [f"{name} {f.rate}%: {f.money(f.tax)}"] if f.rate else []


def plain_invoice(f: Facts, draw: RandomStream) -> list[str]:
    """Write title and vendor on one line, then items, delivery, total."""
    items = [f"{i.quantity} x {i.name}: {f.money(i.amount)}" for i in f.items]
    return [
        f"INVOICE - {f.vendor}",
        f"Date: {f.written(f.day)}",
        *items,
        *_extra(f, "Delivery"),
        *_tax(f, "Tax"),
        f"{draw.pick(('Total due', 'Total', 'Amount due'))}: {f.money(f.total)}",
    ]


def till_receipt(f: Facts, draw: RandomStream) -> list[str]:
    """Write capitals and bare amounts, with cash and change after the total."""
    items = [f"{i.quantity} {i.name.upper()} {f.money.plain(i.amount)}" for i in f.items]
    cash = f"CASH {f.money.plain(f.tendered)} CHANGE {f.money.plain(f.tendered - f.total)}"
    lines = [
        f.vendor.upper(),
        f"DATE: {f.written(f.day)} {f.time}",
        *items,
        *_extra(f, "BAG"),
        *_tax(f, "VAT"),
        f"TOTAL: {f.money(f.total)}",
    ]
    return [*lines, cash] if draw.chance(0.2) else lines


def card_slip(f: Facts, draw: RandomStream) -> list[str]:
    """Write a card terminal's slip: the card's last digits, a tip, no items."""
    tip = [f"Tip: {f.money(f.tax)}"] if f.tax else []
    return [
        f.vendor,
        f"Date: {f.written(f.day)} {f.time}",
        f"{draw.pick(('VISA', 'MASTERCARD', 'DEBIT'))} ****{draw.between(1000, 9999)}",
        f"Amount: {f.money(f.net)}",
        *tip,
        f"Total: {f.money(f.total)}",
    ]


def letter_invoice(f: Facts, draw: RandomStream) -> list[str]:
    """Write letterhead, bill-to name, invoice date and due date."""
    items = [f"{i.name}, {i.quantity} pcs: {f.money(i.amount)}" for i in f.items[:1]]
    return [
        f.vendor,
        f"Bill to: {f.customer}",
        f"Invoice date: {f.written(f.day)}",
        f"Due date: {f.written(f.due)}",
        *items,
        f"Subtotal: {f.money(f.net)}",
        *_tax(f, draw.pick(("VAT", "GST"))),
        f"Total: {f.money(f.total)}",
    ]


def table_invoice(f: Facts, draw: RandomStream) -> list[str]:
    """Write a table with bars, as some converters do."""
    rows = [f"| {i.name} | {i.quantity} | {f.money.plain(i.amount)} |" for i in f.items]
    extra = (
        [f"| {draw.pick(('Freight', 'Packing'))} | 1 | {f.money.plain(f.extra)} |"]
        if f.extra
        else []
    )
    tax = [f"| Tax | {f.rate}% | {f.money.plain(f.tax)} |"] if f.rate else []
    return [
        f"{f.vendor}",
        f"Date: {f.written(f.day)}",
        *rows,
        *extra,
        *tax,
        f"Total: {f.money(f.total)}",
    ]


def restaurant(f: Facts, draw: RandomStream) -> list[str]:
    """Write a restaurant's bill, with service."""
    items = [f"{i.name} x{i.quantity} {f.money.plain(i.amount)}" for i in f.items]
    return [
        f"*** {f.vendor} ***",
        f"Table {draw.between(1, 40)}, date: {f.written(f.day)} {f.time}",
        *items,
        *_extra(f, "Service"),
        *_tax(f, "Tax"),
        f"Bill total: {f.money(f.total)}",
    ]


def order_mail(f: Facts, draw: RandomStream) -> list[str]:
    """Write a confirmation by mail, in sentences."""
    goods = ", ".join(f"{i.quantity} x {i.name}" for i in f.items)
    return [
        f"{f.vendor}: order confirmation",
        f"Order date: {f.written(f.day)}",
        f"Dear {f.customer}, thank you for buying {goods}.",
        f"Total charged: {f.money(f.total)}",
    ]


def fuel_receipt(f: Facts, draw: RandomStream) -> list[str]:
    """Write pump and litres before the total, and sometimes points after it."""
    fuel = draw.pick(("UNLEADED", "DIESEL", "SUPER 95"))
    lines = [
        f.vendor,
        f"DATE: {f.written(f.day)} {f.time}",
        f"PUMP {draw.between(1, 12)} {fuel} {draw.between(12, 60)} L",
        *_tax(f, "TAX"),
        f"TOTAL: {f.money(f.total)}",
    ]
    return [*lines, f"POINTS: {draw.between(10, 900)}"] if draw.chance(0.2) else lines


def fare_receipt(f: Facts, draw: RandomStream) -> list[str]:
    """Write a ride's receipt, with the operator at the foot of the page."""
    fee = draw.pick(("Airport fee", "Toll", "Booking fee"))
    return [
        f"Date: {f.written(f.day)} {f.time}",
        f"Fare: {f.money(f.net - f.extra)}",
        *_extra(f, fee),
        *_tax(f, "Tax"),
        f"Total paid: {f.money(f.total)}",
        f"Operated by {f.vendor}",
    ]


def memo(f: Facts, draw: RandomStream) -> list[str]:
    """Write a memo from one to another, with two dates on one line."""
    items = [f"- {i.name} ({i.quantity}): {f.money(i.amount)}" for i in f.items]
    return [
        f"From: {f.vendor}",
        f"To: {f.customer}",
        f"Date: {f.written(f.day)}, pay by {f.written(f.due)}",
        *items,
        *_extra(f, "Carriage"),
        *_tax(f, "Tax"),
        f"Grand total: {f.money(f.total)}",
    ]


def sum_received(f: Facts, draw: RandomStream) -> list[str]:
    """Write a receipt that names who paid, and for what. Test only."""
    return [
        f"{f.vendor} - receipt {f.number}",
        f"Date: {f.written(f.day)}",
        f"Received from {f.customer} for {f.items[0].name}",
        *_tax(f, "Tax included"),
        f"Total received: {f.money(f.total)}",
    ]


def hotel_folio(f: Facts, draw: RandomStream) -> list[str]:
    """Write a hotel's bill with guest, room and service. Test only."""
    return [
        f"{f.vendor} - guest folio",
        f"Guest: {f.customer}, room {draw.between(101, 640)}",
        f"Date: {f.written(f.day)}",
        f"Room: {f.money(f.net)}",
        *_tax(f, "Service"),
        f"Total charges: {f.money(f.total)}",
    ]


def utility_bill(f: Facts, draw: RandomStream) -> list[str]:
    """Write a bill with meter readings and a due date. Test only."""
    reading = draw.between(1000, 8000)
    return [
        f.vendor,
        f"Bill date: {f.written(f.day)}",
        f"Meter: {reading} to {reading + draw.between(50, 900)}",
        f"Pay by: {f.written(f.due)}",
        *_tax(f, "Tax included"),
        f"Total bill: {f.money(f.total)}",
    ]


def subscription(f: Facts, draw: RandomStream) -> list[str]:
    """Write a web shop's receipt for a subscription. Test only."""
    return [
        f"Sold by: {f.vendor}",
        f"Date: {f.written(f.day)}",
        (
            f"{draw.pick(('Team plan', 'Pro plan', 'Storage plan'))}, {draw.between(2, 20)} seats:"
            f" {f.money(f.net)}"
        ),
        *_tax(f, "Tax"),
        f"Total paid: {f.money(f.total)}",
    ]


SHARED: Sequence[Layout] = (
    plain_invoice,
    till_receipt,
    card_slip,
    letter_invoice,
    table_invoice,
    restaurant,
    order_mail,
    fuel_receipt,
    fare_receipt,
    memo,
)
TEST_ONLY: Sequence[Layout] = (sum_received, hotel_folio, utility_bill, subscription)
