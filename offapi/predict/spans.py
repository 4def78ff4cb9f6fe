"""Where things stand in an answer: each token's characters, and each field's JSON value.

Left out: where a value stands in the document (`offapi.constrain.evidence`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from offapi.checks.places import Span

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_UNFINISHED = "\ufffd"  # how decoders show the beginning of a character


def token_spans(decode: Callable[[Sequence[int]], str], tokens: Sequence[int]) -> list[Span]:
    """Return the characters of the decoded text that each token wrote.

    Tokens that write one character together all have its span; a token without text, such as the
    one that stops, has an empty one. Only a window of tokens is decoded at a time, since some
    decoders treat the first token of a text in a way of its own.
    """
    spans: list[Span] = []
    first = settled = 0  # the window's first token, and the first one not yet placed
    at = 0  # characters placed
    for end in range(1, len(tokens) + 1):
        before = decode(tokens[first:settled])
        text = decode(tokens[first:end])
        grown = len(text) - len(before)
        if (grown <= 0 or text.endswith(_UNFINISHED)) and end < len(tokens):
            continue
        spans += [(at, at + max(grown, 0))] * (end - settled)
        at += max(grown, 0)
        first, settled = settled, end
    return spans


def value_spans(text: str, start: int = 0) -> dict[str, Span]:
    """Return where the value of each field stands in the JSON object that begins at `start`.

    Fields inside objects have dotted paths; a list is one value. Nothing where there is no object.
    """
    spans: dict[str, Span] = {}
    try:
        _walk(text, start, "", spans)
    except (ValueError, RecursionError):
        return {}
    return spans


def _walk(text: str, at: int, prefix: str, spans: dict[str, Span]) -> int:
    """Note the values of the object at `at`; return its end. Raise ValueError for other text."""
    at = _past(text, at, "{")
    while text[at : at + 1] != "}":
        name, at = _DECODER.raw_decode(text, at)
        at = _past(text, at, ":")
        path = f"{prefix}{name}"
        if text[at : at + 1] == "{":
            end = _walk(text, at, f"{path}.", spans)
        else:
            _, end = _DECODER.raw_decode(text, at)
        if not prefix or path not in spans:  # a field whose own name has the dot comes first
            spans[path] = (at, end)
        at = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # it matches nothing too
        if text[at : at + 1] != "}":
            at = _past(text, at, ",")
    return at + 1


def _past(text: str, at: int, mark: str) -> int:
    """Return the place after `mark` and the white space around it."""
    at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    if text[at : at + 1] != mark:
        raise ValueError(f"expected {mark!r} at character {at}")
    return _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]
