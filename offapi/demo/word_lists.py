"""Made-up names and goods for synthetic documents.

A vendor's name begins with a first word of its split, so vendors never cross splits.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split("|"))


FIRST = {
    "train": _words(
        """Green|Blue|Silver|Golden|North|South|Bright|Old|New|River|Maple|Stone|Royal|
        Central|Sunny|Grand|Happy|Red|Black|Summer|Ocean|Forest|Garden|Crystal|Diamond|
        Union|Liberty|Capital|Global|Modern"""
    ),
    "val": _words("White|East|Winter|Cedar|Harbor|Star"),
    "test": _words("West|Lake|Spring|Oak|Iron|Crown|City|Pacific|Premier|Sunset"),
}
SECOND = _words(
    """Valley|Hill|Street|Bridge|Park|House|Field|Gate|Point|Wood|Creek|Square|Coast|
    Line|Peak|Island|Tower|View|Road|Corner"""
)
TRADES = _words(
    """Hardware|Bakery|Books|Motors|Electric|Foods|Pharmacy|Coffee|Garden Centre|
    Printing|Software|Cycles|Kitchen|Timber|Cleaning|Grill|Photo|Music|Pet Supplies|
    Office Supplies|Furniture|Market|Travel|Design"""
)
FORMS = _words("Ltd|Ltd|GmbH|Inc|LLC|Sdn Bhd|Company|Group")
PEOPLE = _words(
    """Anna Moreau|Ben Carter|Chloe Adams|Daniel Ortiz|Emma Schmidt|Farid Khan|Grace Lee|
    Hugo Martin|Ines Costa|Jack Turner|Karin Berg|Leo Rossi|Mia Brown|Noah Patel|
    Olga Petrova|Paul Dubois"""
)
GOODS = _words(
    """Widget|Notebook A5|Desk lamp|Paint 5L|Steel bolts|Coffee beans|Printer paper|
    USB cable|Garden hose|Light bulbs|Oak shelf|Window seal|Brake pads|Copper pipe|
    Work gloves|Labels|Toner black|Filter bags|Hand soap|Door hinge|Ink pens|
    Batteries AA|Dust sheets|Tea towels"""
)
DISHES = _words(
    """Espresso|Club sandwich|Tomato soup|House salad|Lemon cake|Fish & chips|Fried rice|
    Green tea|Pasta pesto|Apple juice|Veggie burger|Mineral water"""
)
MONTHS = _words(
    "January|February|March|April|May|June|July|August|September|October|November|December"
)
