"""How the pages look: one function a layout, facts in, lines out.

Each sets its traps: a subtotal above the total, a due date beside the date, cash given
and change, a customer's name. The first ten are for all splits, the rest for test alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from offapi.demo.draw import Draw
from offapi.demo.facts import Facts

Layout = Callable[[Facts, Draw], list[str]]


def plain_invoice(f: Facts, draw: Draw) -> list[str]:
    """Title and vendor on one line, then items, delivery, total."""
    items = [f"{i.quantity}x {i.name} @ {f.money(i.price)}  {f.money(i.amount)}" for i in f.items]
    tax = [f"Tax {f.rate}%  {f.money(f.tax)}"] if f.rate else []
    delivery = [f"Delivery  {f.money(f.extra)}"] if f.extra else []
    label = draw.pick(("Total due", "TOTAL", "Amount due"))
    return [
        f"INVOICE - {f.vendor}",
        f"Date: {f.written(f.day)}",
        *items,
        *delivery,
        *tax,
        f"{label}: {f.money(f.total)}",
    ]


def till_receipt(f: Facts, draw: Draw) -> list[str]:
    """Capitals, bare amounts, cash and change after the total."""
    items = [f"{i.quantity} {i.name.upper()}  {f.money.plain(i.amount)}" for i in f.items]
    bags = [f"BAG  {f.money.plain(f.extra)}"] if f.extra else []
    tax = [f"SUBTOTAL  {f.money.plain(f.net)}", f"VAT {f.rate}%  {f.money.plain(f.tax)}"] if f.rate else []
    change = f.money.plain(f.tendered - f.total)
    return [
        f.vendor.upper(),
        f.address,
        f"{f.written(f.day)} {f.time}",
        *items,
        *bags,
        *tax,
        f"TOTAL  {f.money(f.total)}",
        f"CASH  {f.money.plain(f.tendered)}",
        f"CHANGE  {change}",
        draw.pick(("THANK YOU", "PLEASE COME AGAIN", "KEEP THIS RECEIPT")),
    ]


def card_slip(f: Facts, draw: Draw) -> list[str]:
    """A terminal's slip: no items, a tip, many numbers."""
    return [
        f.vendor,
        f"Terminal {draw.between(10000000, 99999999)}",
        f"{draw.pick(('VISA', 'MASTERCARD', 'DEBIT'))} ****{draw.between(1000, 9999)}",
        f"{f.written(f.day)} {f.time}",
        f"Amount  {f.money(f.net)}",
        f"{'Tip' if f.rate else 'Fee'}  {f.money(f.tax)}",
        f"Total  {f.money(f.total)}",
        f"Auth code {draw.between(100000, 999999)}",
    ]


def letter_invoice(f: Facts, draw: Draw) -> list[str]:
    """Letterhead, bill-to name, invoice date and due date."""
    items = [f"{i.name}, {i.quantity} pcs: {f.money(i.amount)}" for i in f.items]
    shipping = [f"Shipping: {f.money(f.extra)}"] if f.extra else []
    return [
        f.vendor,
        f.address,
        f"Bill to: {f.customer}",
        f"Invoice {f.number}",
        f"Invoice date: {f.written(f.day)}",
        f"Due date: {f.written(f.due)}",
        *items,
        *shipping,
        f"Subtotal: {f.money(f.net)}",
        f"{draw.pick(('VAT', 'GST', 'Sales tax'))} ({f.rate}%): {f.money(f.tax)}",
        f"{draw.pick(('Amount payable', 'Total', 'Balance due'))}: {f.money(f.total)}",
    ]


def table_invoice(f: Facts, draw: Draw) -> list[str]:
    """A table with bars, as some converters write it."""
    rows = [f"| {i.name} | {i.quantity} | {f.money.plain(i.amount)} |" for i in f.items]
    extra = [f"| {draw.pick(('Freight', 'Packing'))} | 1 | {f.money.plain(f.extra)} |"] if f.extra else []
    return [
        f"{f.vendor} | {f.address}",
        f"Invoice no. {f.number} | {f.written(f.day)}",
        "| Item | Qty | Amount |",
        *rows,
        *extra,
        f"| Tax | | {f.money.plain(f.tax)} |",
        f"| TOTAL | | {f.money(f.total)} |",
    ]


def restaurant(f: Facts, draw: Draw) -> list[str]:
    """A bill at the table, with service."""
    items = [f"{i.name} x{i.quantity}  {f.money.plain(i.amount)}" for i in f.items]
    service = [f"Service  {f.money.plain(f.extra)}"] if f.extra else []
    return [
        f"*** {f.vendor} ***",
        f"Table {draw.between(1, 40)}  Server: {f.customer.split()[0]}",
        f"Date {f.written(f.day)}  {f.time}",
        *items,
        *service,
        f"Tax  {f.money.plain(f.tax)}",
        f"Bill total  {f.money(f.total)}",
        "Tip not included",
    ]


def order_mail(f: Facts, draw: Draw) -> list[str]:
    """A confirmation by mail: sentences instead of columns."""
    goods = ", ".join(f"{i.quantity} x {i.name}" for i in f.items)
    return [
        f"Hello {f.customer},",
        f"thank you for your order at {f.vendor}.",
        f"Order {f.number} of {f.written(f.day)}: {goods}.",
        f"Goods {f.money(f.net - f.extra)}, postage {f.money(f.extra)}, tax {f.money(f.tax)}.",
        f"We charged {f.money(f.total)} to your {draw.pick(('card', 'account'))}.",
    ]


def fuel_receipt(f: Facts, draw: Draw) -> list[str]:
    """Litres and a price a litre before the total, loyalty points after it."""
    fuel = draw.pick(("UNLEADED", "DIESEL", "SUPER 95"))
    litres = draw.between(1200, 6000) / 100
    return [
        f.vendor,
        f.address,
        f"PUMP {draw.between(1, 12)}  {fuel}  {litres:.2f} L",
        f"NET  {f.money.plain(f.net)}",
        f"TAX {f.rate}%  {f.money.plain(f.tax)}",
        f"TOTAL  {f.money(f.total)}",
        f"DATE {f.written(f.day)} TIME {f.time}",
        f"POINTS EARNED {draw.between(10, 900)}",
    ]


def fare_receipt(f: Facts, draw: Draw) -> list[str]:
    """A ride; the operator stands at the foot of the page."""
    return [
        "RECEIPT",
        f"Trip on {f.written(f.day)} at {f.time}",
        f"Passenger: {f.customer}",
        f"Fare  {f.money(f.net - f.extra)}",
        f"{draw.pick(('Airport fee', 'Toll', 'Booking fee'))}  {f.money(f.extra)}",
        f"Tax  {f.money(f.tax)}",
        f"Total paid  {f.money(f.total)}",
        f"Operated by {f.vendor}",
    ]


def quote_and_bill(f: Facts, draw: Draw) -> list[str]:
    """Fields in two columns, the total before the items it sums."""
    items = [f"- {i.name} ({i.quantity})  {f.money(i.amount)}" for i in f.items]
    return [
        f"From: {f.vendor}",
        f"To: {f.customer}",
        f"Issued: {f.written(f.day)}  Pay by: {f.written(f.due)}",
        f"GRAND TOTAL: {f.money(f.total)}",
        f"{draw.pick(('including', 'of which'))} tax {f.money(f.tax)}, carriage {f.money(f.extra)}",
        *items,
    ]


def sum_received(f: Facts, draw: Draw) -> list[str]:
    """Test only: a receipt in words."""
    return [
        f"Receipt no. {f.number}",
        f"Received on {f.written(f.day)} from {f.customer}",
        f"the sum of {f.money(f.total)} for {f.items[0].name},",
        f"tax of {f.money(f.tax)} included.",
        f"Signed for {f.vendor}",
    ]


def hotel_folio(f: Facts, draw: Draw) -> list[str]:
    """Test only: guest, nights, city tax, balance."""
    return [
        f"{f.vendor} - Guest folio",
        f"Guest: {f.customer}  Room {draw.between(101, 640)}",
        f"Folio date {f.written(f.day)}",
        f"{draw.between(1, 5)} nights  {f.money(f.net - f.extra)}",
        f"Minibar  {f.money(f.extra)}",
        f"City tax  {f.money(f.tax)}",
        f"Total charges  {f.money(f.total)}",
    ]


def utility_bill(f: Facts, draw: Draw) -> list[str]:
    """Test only: an account, meter readings, an amount to pay by a later date."""
    reading = draw.between(10000, 80000)
    return [
        f.vendor,
        f"Account {draw.between(100000, 999999)}  {f.customer}",
        f"Bill date: {f.written(f.day)}",
        f"Readings {reading} - {reading + draw.between(50, 900)}",
        f"Usage  {f.money(f.net - f.extra)}",
        f"Standing charge  {f.money(f.extra)}",
        f"Tax {f.rate}%  {f.money(f.tax)}",
        f"Please pay {f.money(f.total)} by {f.written(f.due)}",
    ]


def subscription(f: Facts, draw: Draw) -> list[str]:
    """Test only: a web shop's receipt, the vendor in the middle."""
    return [
        f"Payment receipt {f.number}",
        f"Paid {f.written(f.day)}",
        f"Sold by {f.vendor}, {f.address}",
        f"{draw.pick(('Team plan', 'Pro plan', 'Storage plan'))}, {draw.between(2, 20)} seats",
        f"Subtotal {f.money(f.net)}",
        f"Tax {f.money(f.tax)}",
        f"Amount paid {f.money(f.total)}",
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
    quote_and_bill,
)
TEST_ONLY: Sequence[Layout] = (sum_received, hotel_folio, utility_bill, subscription)
