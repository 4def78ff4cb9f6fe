"""Where an answer's values stand in the document.

Left out: deciding which of several places a value was taken from; the first one is named.
"""

from __future__ import annotations

import re
from typing import Any

from offapi.predict.spans import Span

_WORDS = re.compile(r"\S+")


def places(value: Any, document: str) -> tuple[Span, ...]:
    """Return every place in `document` where `value` stands, in order.

    A text may differ in case and in the white space between its words; a number stands where its
    digits do.
    """
    if value is None or isinstance(value, bool | list | dict):
        return ()
    words = _WORDS.findall(value if isinstance(value, str) else f"{value}")
    if not words:
        return ()
    pattern = r"\s+".join(map(re.escape, words))
    found = re.finditer(rf"(?<!\w){pattern}(?!\w)", document, re.IGNORECASE)
    return tuple(match.span() for match in found)
