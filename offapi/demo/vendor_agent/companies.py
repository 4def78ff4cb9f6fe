"""Made-up companies: registered names that are easily confused, with address and number.

A family of companies shares a first word, as real registers do; a name alone rarely decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from offapi.demo.draw import RandomStream
from offapi.demo.word_lists import SECOND, TRADES

_BEGIN = (
    *("Hazel", "Thorn", "Mar", "Wes", "Ash", "Brad", "Chel", "Dun", "Ed", "Fair", "Glen", "Hart"),
    *("Kings", "Lang", "Mill", "Nor", "Old", "Pem", "Quar", "Rad", "Sel", "Tam", "Ull", "Ver"),
    *("Wind", "Yar", "Bram", "Cald", "Der", "Elm", "Farn", "Gris", "Holm", "Ing", "Kel", "Lind"),
)
_END = (
    *("brook", "ley", "ton", "field", "wick", "ford", "by", "worth", "ham", "combe", "mere"),
    *("stead", "hurst", "dale", "gate", "well", "bury", "more", "cott", "shaw"),
)
_FORMS = ("Ltd", "Limited", "PLC", "GmbH", "Inc", "LLC", "Sdn Bhd", "Holdings Ltd", "Group Ltd")
_CITIES = (
    *("Leeds", "York", "Bath", "Derby", "Exeter", "Lincoln", "Norwich", "Oxford", "Ripon"),
    *("Stirling", "Truro", "Wells", "Durham", "Ely", "Chester", "Lancaster"),
)
_STREETS = (
    "High Street",
    "Mill Lane",
    "Station Street",
    "Church Row",
    "Market Square",
    "Quay Side",
)
FAMILY = 4  # companies of one first word, on average


@dataclass(frozen=True)
class Company:
    """One line of the register."""

    id: int
    name: str
    address: str
    number: str  # of registration, as receipts print it


def draw_companies(count: int, seed: int = 0) -> list[Company]:
    """Draw `count` companies, no two of one name; equal for equal seeds on every machine."""
    draw = RandomStream(f"offapi companies {seed}")
    names: dict[str, None] = {}
    words = list(_first_words(draw, max(count // FAMILY, 1)))
    while len(names) < count:
        names.setdefault(_name(draw, words))
    return [_company(draw, i, name) for i, name in enumerate(names, start=1)]


def _first_words(draw: RandomStream, count: int) -> Iterator[str]:
    """Yield `count` different first words, such as Hazelbrook or Hazelbrook & Merewick."""
    singles = [begin + end for begin in _BEGIN for end in _END]
    seen: set[str] = set()
    while len(seen) < count:
        one, other = draw.pick(singles), draw.pick(singles)
        word = one if len(seen) < min(count, len(singles)) // 2 else f"{one} & {other}"
        if word not in seen:
            seen.add(word)
            yield word


def _name(draw: RandomStream, words: Sequence[str]) -> str:
    first, trade, form = draw.pick(words), draw.pick(TRADES), draw.pick(_FORMS)
    place = draw.pick((*_CITIES, *SECOND))
    return draw.pick(
        (
            f"{first} {trade} {form}",
            f"{first} {trade} {form}",
            f"{first} {form}",
            f"{first} {place} {trade} {form}",
            f"{first} {trade} ({place}) {form}",
        )
    )


def _company(draw: RandomStream, id: int, name: str) -> Company:
    street = f"{draw.between(1, 180)} {draw.pick(_STREETS)}"
    return Company(id, name, f"{street}, {draw.pick(_CITIES)}", f"{draw.between(10**6, 10**7 - 1)}")
