"""A list of up to a million names, read once, and which of them a document may mean.

First the names that are printed: their letters and digits, in whole words, whatever stands between
them (`bare_words`). With them come names that are nearly printed, as in scans. Where there are
neither, the few nearest by edit distance. Left out: other words for the same name, and names of
which only a part is printed, unless nothing is nearer.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray
from rapidfuzz import fuzz

from offapi.checks.text_search import SIMILARITY
from offapi.constrain.trigrams import Trigrams
from offapi.errors import ConfigError, nearest, place
from offapi.task.bind import OneOf
from offapi.text.display import plural
from offapi.text.fold import fold, fold_document
from offapi.text.normalise import bare, bare_words

MOST = 1_000_000
_LONGEST_RUN = 16  # words of a printed name
_SHORT = 5  # letters; below this a near match is another word
_FEW = 8  # names that are near, where more would only confuse


@dataclass(frozen=True)
class Register:
    """The names of a list, and an index of their letters and digits."""

    names: tuple[str, ...]
    hashes: NDArray[np.int64]  # of their letters and digits, ascending, (N,)
    order: NDArray[np.int32]  # the name of each hash, (N,)
    trigrams: Trigrams

    @classmethod
    def of(cls, names: tuple[str, ...]) -> Register:
        """Index `names`."""
        letters = [bare(fold(name)) for name in names]
        hashes = np.fromiter(map(hash, letters), np.int64, len(letters))
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        return cls(names, hashes[order], order, Trigrams.of(letters))

    def candidates(self, document: str) -> list[str]:
        """Return the names that `document` may mean, printed ones first, then the nearest."""
        printed = self._printed(document)
        letters = bare(fold_document(document))
        near = self._near(letters)
        close = [name for name, score in near if score >= SIMILARITY]
        found = [*printed, *(name for name in close[:_FEW] if name not in printed)]
        return found or [name for name, _ in near[:_FEW]]

    def _printed(self, document: str) -> list[str]:
        words = bare_words(fold_document(document))
        runs: dict[int, str] = {}
        for first in range(len(words)):
            run = ""
            for word in words[first : first + _LONGEST_RUN]:
                run += word
                runs[hash(run)] = run
        wanted = np.fromiter(runs, np.int64, len(runs))
        starts = np.searchsorted(self.hashes, wanted, "left")
        ends = np.searchsorted(self.hashes, wanted, "right")
        found: list[int] = []
        for at in (ends > starts).nonzero()[0]:
            run = runs[int(wanted[at])]
            same = self.order[starts[at] : ends[at]]
            found += [int(i) for i in same if bare(fold(self.names[i])) == run]
        return [self.names[i] for i in sorted(found)]

    def _near(self, letters: str) -> list[tuple[str, float]]:
        """Return the names that share most with the document, with their likeness of 100."""
        scored = []
        for i in self.trigrams.likeliest(letters):
            name = bare(fold(self.names[i]))
            compare = fuzz.partial_ratio if len(name) <= len(letters) else fuzz.ratio
            likeness = compare(name, letters)
            scored.append((self.names[i], likeness if len(name) >= _SHORT else 0.0))
        return sorted(scored, key=lambda one: -one[1])


def read_register(bound: OneOf) -> Register:
    """Return the list of `bound`, indexed; it is kept in memory as long as its file is the same.

    Raise ConfigError, with file and line, for a file that is missing, has no such column, has an
    empty name or one name twice, or has more than a million names.
    """
    try:
        stat = bound.path.stat()
    except OSError as error:
        raise ConfigError(
            f"cannot read the list of names: {error.strerror}.",
            where=str(bound.path),
            next_step="Correct the path in one_of(...); it is relative to the task file.",
        ) from None
    return _read(bound, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _read(bound: OneOf, changed: int, size: int) -> Register:
    seen: dict[str, int] = {}
    for line, name in _names(bound):
        if not name:
            raise _wrong(bound, line, "the name is empty", "Write a name, or remove the line.")
        if name in seen:
            what = f"{name!r} is already the name of line {seen[name]}"
            raise _wrong(bound, line, what, "Remove one of them.")
        seen[name] = line
        if len(seen) > MOST:
            what = f"there are more than {plural(MOST, 'name')}"
            raise _wrong(bound, line, what, "Shorten the list.")
    if not seen:
        raise _wrong(bound, None, "there are no names", "Write one name on each line.")
    return Register.of(tuple(seen))


def _names(bound: OneOf) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each row, without white space around it."""
    try:
        with bound.path.open(encoding="utf-8-sig", newline="") as file:
            if bound.path.suffix.lower() == ".csv":
                rows = csv.DictReader(file)
                _check_column(bound, 1, rows.fieldnames or ())
                for row in rows:
                    yield rows.line_num, (row[bound.column or ""] or "").strip()
                return
            for number, line in enumerate(file, start=1):
                if bound.path.suffix.lower() == ".jsonl":
                    yield number, _field(bound, number, line)
                elif line.strip() or number == 1:
                    yield number, line.strip()
    except (UnicodeDecodeError, csv.Error) as error:
        step = "Save it as UTF-8."
        raise _wrong(bound, None, f"the file cannot be read: {error}", step) from None


def _field(bound: OneOf, number: int, line: str) -> str:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _wrong(bound, number, f"not valid JSON ({error})", "Correct the line.") from None
    if not isinstance(row, dict):
        raise _wrong(bound, number, "the line is not a JSON object", "Write {...} on each line.")
    _check_column(bound, number, list(row))
    name = row[bound.column]
    if not isinstance(name, str):
        raise _wrong(bound, number, f"the name must be a text, got {name!r}", "Write it in quotes.")
    return name.strip()


def _check_column(bound: OneOf, line: int, columns: object) -> None:
    assert isinstance(columns, list | tuple)
    if bound.column not in columns:
        what = f"there is no column {bound.column!r}"
        raise _wrong(bound, line, what, nearest(str(bound.column), map(str, columns)))


def _wrong(bound: OneOf, line: int | None, what: str, step: str) -> ConfigError:
    return ConfigError(f"{what}.", where=place(Path(bound.path), line), next_step=step)
