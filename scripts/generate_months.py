"""Write offapi/checks/months.py: the months' names in many languages, from Unicode's CLDR.

The file is static, so that no check waits for a table of every locale. Run it again to add a
language; it needs babel, which the documentation's tools bring.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from pathlib import Path

from babel import Locale
from babel.dates import get_month_names

LANGUAGES = (
    "af am ar az be bg bn bs ca cs cy da de el en es et eu fa fi fil fo fr ga gl gu he hi hr hu hy"
    " id is it ka kk km kn lb lo lt lv mk ml mn mr ms mt my nb ne nl nn pa pl pt ro ru si sk sl sq"
    " sr sv sw ta te th tr uk ur uz"
)
HEAD = '''"""The months' names in {count} languages, by Unicode's CLDR (scripts/generate_months.py).

Lower case and composed, without dots; as in a date and by themselves, whole and abbreviated.
Languages: {languages}.
"""

NAMES = (
'''
WORD = re.compile(r"[^\W\d_][^\s\d.,/()'-]{2,}")


def names_of(language: str, month: int) -> set[str]:
    """Return the names of `month` (1 to 12) that are one word."""
    locale = Locale.parse(language)
    names: set[str] = set()
    for width in ("wide", "abbreviated"):
        for context in ("format", "stand-alone"):
            name = get_month_names(width, context, locale)[month]
            folded = unicodedata.normalize("NFKC", name).casefold().replace("\u2019", "'")
            word = re.sub(r"^(?:de |d')", "", folded.replace(".", ""))
            if WORD.fullmatch(word) and not any(char.isdigit() for char in word):
                names.add(word)
    return names


def main() -> None:
    """Write the table."""
    languages = LANGUAGES.split()
    wrapped = textwrap.fill(LANGUAGES, 90, initial_indent=" " * 11).strip()
    lines = [HEAD.format(count=len(languages), languages=wrapped)]
    for month in range(1, 13):
        names = sorted(set().union(*(names_of(language, month) for language in languages)))
        parts = textwrap.wrap(" ".join(names), 55, break_long_words=False)
        lines += [f'    "{part} "\n' for part in parts[:-1]]
        lines.append(f'    "{parts[-1]}",\n')
    path = Path(__file__).parent.parent / "offapi" / "checks" / "months.py"
    path.write_text("".join([*lines, ")\n"]), "utf-8")


if __name__ == "__main__":
    main()
