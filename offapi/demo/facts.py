"""The facts of a synthetic invoice or receipt: who, when, what, how much, and their spelling.

All names are made up from word lists. Amounts are whole minor units (cents), so sums are exact.
Left out: how a page is laid out (`layouts.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from offapi.demo.draw import RandomStream
from offapi.demo.word_lists import DISHES, FIRST, FORMS, GOODS, MONTHS, PEOPLE, SECOND, TRADES

Split = Literal["train", "val", "test"]
DateStyle = Literal["iso", "slash", "us", "dots", "long", "us long", "short", "caps"]


@dataclass(frozen=True)
class Money:
    """How amounts are written: the text `before` and `after` the figure, and its separators."""

    before: str
    after: str
    thousands: str
    point: str

    def plain(self, minor: int) -> str:
        """Write the figure alone, as in a column of prices."""
        return f"{minor // 100:,}".replace(",", self.thousands) + f"{self.point}{minor % 100:02}"

    def __call__(self, minor: int) -> str:
        """Write the figure with its currency."""
        return f"{self.before}{self.plain(minor)}{self.after}"

    def value(self, minor: int) -> float:
        """Return the amount in major units, as in the gold answers."""
        return minor / 100


POUND, DOLLAR = Money("£", "", ",", "."), Money("$", "", ",", ".")
EURO, EURO_COMMA, EURO_WORD = (
    Money("€", "", ",", "."),
    Money("", " €", ".", ","),
    Money("EUR ", "", ",", "."),
)
RINGGIT, FRANC, RUPEE = (
    Money("RM", "", ",", "."),
    Money("CHF ", "", "'", "."),
    Money("Rs. ", "", ",", "."),
)

# Most are spellings and currencies that a small teacher reads well; the rest cause its mistakes.
# The month comes first only with dollars and a day above 12, so that no date is ambiguous.
_EUROPEAN: tuple[DateStyle, ...] = (*("iso",) * 18, *("slash",) * 4, "dots", "long", "short")
_AMERICAN: tuple[DateStyle, ...] = (*("iso",) * 18, "us", "us", "us", "us long", "caps")
_MONEYS = (*(POUND, DOLLAR, EURO, RINGGIT) * 4, EURO_WORD, FRANC, RUPEE, EURO_COMMA)


@dataclass(frozen=True)
class Item:
    """One line of goods. `price` is per unit, in minor units."""

    name: str
    quantity: int
    price: int

    @property
    def amount(self) -> int:
        """Quantity times price, in minor units."""
        return self.quantity * self.price


@dataclass(frozen=True)
class Facts:
    """Everything a layout may print. Amounts are in minor units; `total` is the amount to pay."""

    vendor: str
    customer: str
    number: str
    day: date
    due: date
    time: str
    items: tuple[Item, ...]
    extra: int  # delivery, service or similar
    rate: int  # tax on items and extra, in percent
    money: Money
    style: DateStyle

    @property
    def net(self) -> int:
        """The amount before tax."""
        return sum(item.amount for item in self.items) + self.extra

    @property
    def tax(self) -> int:
        """The tax on the net amount, rounded half up."""
        return (self.net * self.rate + 50) // 100

    @property
    def total(self) -> int:
        """The net amount plus tax."""
        return self.net + self.tax

    @property
    def tendered(self) -> int:
        """The cash handed over: the next round amount above the total."""
        return (self.total // 2000 + 1) * 2000

    def written(self, day: date) -> str:
        """Write `day` in this document's style."""
        return spell(day, self.style)


def spell(day: date, style: DateStyle) -> str:
    """Write `day` in `style`, with English month names whatever the locale."""
    month, d, m, y = MONTHS[day.month - 1], day.day, day.month, day.year
    return {
        "iso": f"{y}-{m:02}-{d:02}",
        "slash": f"{d:02}/{m:02}/{y}",
        "us": f"{m:02}/{d:02}/{y}",
        "dots": f"{d:02}.{m:02}.{y}",
        "long": f"{d} {month} {y}",
        "us long": f"{month} {d}, {y}",
        "short": f"{d:02}-{month[:3]}-{y % 100:02}",
        "caps": f"{d:02} {month[:3].upper()} {y}",
    }[style]


def draw_facts(draw: RandomStream, split: Split) -> Facts:
    """Draw the facts of one document, with a vendor of `split`."""
    money = draw.pick(_MONEYS)
    day = date(2023, 1, 1) + timedelta(days=draw.below(4 * 365))
    style = draw.pick(_AMERICAN if money is DOLLAR else _EUROPEAN)
    if style == "us" and day.day <= 12:
        day = day.replace(day=day.day + 13)
    goods = DISHES if draw.chance(0.3) else GOODS
    return Facts(
        vendor=_vendor(draw, split),
        customer=draw.pick(PEOPLE),
        number=f"{draw.pick(('INV-', 'R', '', '#', 'A/'))}{draw.between(1000, 99999)}",
        day=day,
        due=day + timedelta(days=draw.pick((14, 30))),
        time=f"{draw.between(8, 21):02}:{draw.below(60):02}",
        items=tuple(_item(draw, name) for name in draw.sample(goods, draw.between(1, 2))),
        extra=draw.pick((0, 350, 450, 500, 850, 1200)),
        rate=draw.pick((0, 5, 6, 10, 20)),
        money=money,
        style=style,
    )


def _vendor(draw: RandomStream, split: Split) -> str:
    name = f"{draw.pick(FIRST[split])} {draw.pick(SECOND)}"
    trade, form = draw.pick(TRADES), draw.pick(FORMS)
    return draw.pick((f"{name} {trade}", f"{name} {trade} {form}", f"{name} {form}"))


def _item(draw: RandomStream, name: str) -> Item:
    """Draw an item: mostly a small price, in steps of five, sometimes a large one."""
    highest = 4000 if draw.chance(0.1) else 380
    return Item(name, draw.between(1, 4), draw.between(30, highest) * 5)
