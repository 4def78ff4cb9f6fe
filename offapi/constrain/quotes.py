"""A document's words as a grammar: any run of whole words, and nothing else.

The rule: words are runs of letters and digits, a mark is a word of its own, and in scripts without
spaces so is every letter. Words are quoted in their order and as printed, case included; any white
space between two of them, line breaks too, is one space, and there is none where the document has
none. Left out: runs that leave out a word in the middle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from offapi.constrain.grammar import Grammar, Part, check_library
from offapi.constrain.keywords import STRING_CHARACTER, own_keywords, refused
from offapi.constrain.readings import fitting

# U+0E00 on: Thai, Chinese, Japanese and others that write no spaces; Korean does, and is cut too.
_WORD = re.compile(r"(?:[^\W_\u0e00-\U0010ffff][\u0300-\u036f]*)+|\S[\u0300-\u036f]*|\s+")
_UNPRINTED = re.compile(r"[\x00-\x1f\x7f]+")
_NO_BEGINNING = (
    r")\]},:;!?%*\/"  # marks that end or part something, as a regular expression's class
)
_LONGEST = 40  # words and spaces of a run that is looked for
_LIMITS = frozenset({"type", "minLength", "maxLength", "pattern"})


@lru_cache(maxsize=64)
def words_of(document: str) -> tuple[str, ...]:
    """Return the document's words and the single spaces between them."""
    text = _UNPRINTED.sub(" ", document).strip()
    return tuple(" " if word.isspace() else word for word in _WORD.findall(text))


def check_limits(part: Mapping[str, Any], path: str) -> None:
    """Raise ConfigError for a keyword that a quoted field cannot keep."""
    for key in sorted(own_keywords(part) - _LIMITS):
        raise refused(
            path, key, "a field that is quoted from the document cannot keep it",
            "Use minLength, maxLength or pattern, or take the field out of `bind`.",
        )  # fmt: skip
    if pattern := part.get("pattern"):
        check_library(f"start: T\nT: /{_anchored(pattern, path)}/", path)


def _fits(words: tuple[str, ...], part: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    """Return whether some run of a few words is within the limits of `part`."""
    if own_keywords(part) <= {"type"}:
        return True
    runs = (
        "".join(words[first:end]).strip()
        for first in range(len(words))
        for end in range(first + 1, min(first + _LONGEST, len(words)) + 1)
    )
    return bool(fitting(runs, part, root))


def quoted(document: str, part: Mapping[str, Any], path: str, grammar: Grammar) -> Part | None:
    """Return the grammar of a run of the document's words within the limits of `part`.

    None where the document has no such words.
    """
    words = words_of(document)
    if not words or not _fits(words, part, grammar.root):
        return None
    chunks = [orjson.dumps(word).decode()[1:-1] for word in words]
    run = grammar.add(
        "%regex " + orjson.dumps({"substring_chunks": chunks}).decode(), terminal=True
    )
    limits = [run, rf"/[^ {_NO_BEGINNING}](.*[^ ])?/"]
    least, most = part.get("minLength", 0), part.get("maxLength", "")
    if least or most != "":
        limits.append(f"/{STRING_CHARACTER}{{{least},{most}}}/")
    if pattern := part.get("pattern"):
        limits += [f"/{_anchored(pattern, path)}/", r'/[^"\\]*/']
    name = grammar.add(" & ".join(limits), terminal=True)
    longest = max(chunks, key=len)
    return Part(f'("\\"" {name} "\\"")', f'"{longest} {longest}"', longest)


def _anchored(pattern: str, path: str) -> str:
    """Return a JSON schema's pattern, which may match anywhere, as one for the whole text."""
    begins = pattern.startswith("^")
    ends = pattern.endswith("$") and not pattern.endswith(r"\$")
    inner = pattern[begins : -1 if ends else None]
    if (begins or ends) and _alternates(inner):
        step = "Put brackets around the alternatives, as in ^(A|B)$."
        raise refused(path, "pattern", "an anchor stands in one of several alternatives", step)
    whole = re.sub(r"(?<!\\)/", r"\/", inner)
    return ("" if begins else ".*") + f"({whole})" + ("" if ends else ".*")


def _alternates(pattern: str) -> bool:
    """Return whether `pattern` has alternatives outside brackets."""
    outside = re.sub(r"\\.|\[[^\]]*\]", "", pattern)
    while "(" in outside and (inner := re.sub(r"\([^()]*\)", "", outside)) != outside:
        outside = inner
    return "|" in outside
