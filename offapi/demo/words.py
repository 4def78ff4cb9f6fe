"""Made-up names and goods for synthetic documents.

Every vendor's name holds one stem or two, and a stem belongs to one split: vendors never cross.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split("|"))


STEMS = {
    "train": _words("""Harlow|Finch|Brightwater|Kestrel|Montrose|Olmedo|Larkin|Whitby|Sorrento|Ashdown|Calder|Penrose|
        Vandermeer|Tamsin|Rosewood|Okafor|Lindqvist|Greenaway|Holloway|Castell|Marlowe|Dunmore|Ferreira|Takeda|
        Bramble|Northgate|Silverdale|Pemberton|Quigley|Rahman|Stellan|Thornbury|Umbria|Velasco|Winslow|Yarrow|
        Zeller|Abbot|Birchall|Corbin|Delacroix|Eastwick|Fairfax|Goldberg|Hartmann|Ivory|Jansen|Kowalski|Lombardi|
        Mercer|Novak|Osborne|Pacific|Redfern|Sandoval|Tillman|Ulrich|Vickers|Westbrook|Ximenes"""),
    "val": _words("""Ambrose|Beckett|Cordoba|Driscoll|Elmwood|Fontaine|Gillespie|Hawthorne|Iversen|Juniper|Keswick|
        Lavender"""),
    "test": _words("""Alderman|Bellamy|Caraway|Dunstan|Everett|Foxglove|Granada|Hollis|Inverness|Jarvis|Kingfisher|
        Langford|Maddox|Nightingale|Oakley|Pickering|Quantock|Rutherford|Summerfield|Trelawney"""),
}
TRADES = _words("""Hardware|Bakery|Stationers|Motors|Plumbing|Electrical|Foods|Books|Pharmacy|Coffee House|
    Garden Centre|Printing|Logistics|Software|Fabrics|Cycles|Optics|Kitchens|Timber|Cleaning Services|Grill|Tea Rooms|
    Photo|Music|Pet Supplies|Office Supplies|Furniture|Market|Travel|Design Studio""")
FORMS = _words("Ltd|Ltd|GmbH|Inc.|LLC|Sdn Bhd|S.L.|AB|AG|B.V.|Pty Ltd|Co.")
PEOPLE = _words("""Anna Moreau|Ben Carter|Chloe Adams|Daniel Ortiz|Emma Schmidt|Farid Khan|Grace Lee|Hugo Martin|
    Ines Costa|Jack Turner|Karin Berg|Leo Rossi|Mia Brown|Noah Patel|Olga Petrova|Paul Dubois""")
STREETS = _words("""High Street|Mill Lane|Station Road|Church Street|Park Avenue|Harbour Road|King Street|
    Bridge Street""")
TOWNS = _words("Leeds|Bristol|Hamburg|Lyon|Austin|Penang|Malmo|Porto|Zurich|Dublin|Utrecht|Seville|Perth|Boston")
GOODS = _words("""Widget|Notebook A5|Desk lamp|Paint 5L|Steel bolts|Coffee beans|Printer paper|USB cable|Garden hose|
    Light bulbs|Oak shelf|Window seal|Brake pads|Copper pipe|Work gloves|Labels|Toner black|Filter bags|Hand soap|
    Door hinge|Ink pens|Batteries AA|Dust sheets|Tea towels""")
DISHES = _words("""Espresso|Club sandwich|Tomato soup|House salad|Lemon cake|Fish & chips|Fried rice|Green tea|
    Pasta pesto|Apple juice|Veggie burger|Mineral water""")
MONTHS = _words("January|February|March|April|May|June|July|August|September|October|November|December")
