"""A person's reviews of rows, stored next to the traces: right, wrong or skipped.

One line each, on disk at once. A row is identified by a hash of its document and answer, so that
nobody reviews it twice. Left out: several people and how well they agree.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from offapi.errors import DataError
from offapi.files.append import append_or_refuse
from offapi.grading.table import Table
from offapi.grading.truth import STRATA, bands
from offapi.randomness import order

NAME = "reviews.jsonl"


@dataclass(frozen=True)
class Reviews:
    """The answers so far by content: True right, False wrong, None skipped."""

    path: Path
    answers: Mapping[int, bool | None]

    @classmethod
    def read(cls, path: Path) -> Reviews:
        """Read the reviews in a file; none where there is no file.

        Ignores a last line that was cut off.
        """
        data = path.read_bytes() if path.is_file() else b""
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        return cls(
            path, dict(_parse(path, number, line) for number, line in enumerate(lines, start=1))
        )

    def add(self, id: str, content: int, right: bool | None) -> Reviews:
        """Store one more answer and return the reviews with it.

        Raises RunError when the disk refuses.
        """
        line = orjson.dumps(
            {"id": id, "content": f"{content:016x}", "right": right},
            option=orjson.OPT_APPEND_NEWLINE,
        )
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            data = os.pread(file, os.fstat(file).st_size, 0)
            os.ftruncate(file, data.rfind(b"\n") + 1)
            append_or_refuse(file, line, self.path, sync=True)
        finally:
            os.close(file)
        return Reviews(self.path, {**self.answers, content: right})

    def of(self, table: Table) -> dict[int, bool]:
        """Return right or wrong by row, for the reviewed rows that could be graded."""
        known = {content: right for content, right in self.answers.items() if right is not None}
        rows = np.flatnonzero(
            np.isin(table["content"], np.array(list(known), np.uint64)) & ~np.isnan(table["score"])
        )
        return {int(row): known[int(table["content"][row])] for row in rows}

    def wanted(self, table: Table, count: int, seed: int = 0) -> list[int]:
        """Return rows to ask about until `count` are reviewed.

        Random, and spread evenly over the bands of scores as far as they have rows.
        """
        reviewed = self.of(table)
        asked = np.isin(table["content"], np.array(list(self.answers), np.uint64))
        open_rows = ~asked & ~np.isnan(table["score"]) & table["has_answer"]
        band, shuffled = bands(table["score"]), np.array(order(seed, 0, len(table)), np.int64)
        left = [
            iter(shuffled[open_rows[shuffled] & (band[shuffled] == i)].tolist())
            for i in range(len(STRATA) + 1)
        ]
        reviewed_bands = [int(band[row]) for row in reviewed]
        have = [reviewed_bands.count(i) for i in range(len(STRATA) + 1)]
        rows: list[int] = []
        while len(reviewed) + len(rows) < count and left:
            i = min(range(len(left)), key=lambda each: (have[each], -each))
            row = next(left[i], None)
            if row is None:
                del left[i], have[i]
            else:
                rows.append(row)
                have[i] += 1
        return rows


def _parse(path: Path, number: int, line: bytes) -> tuple[int, bool | None]:
    try:
        row = orjson.loads(line)
        if row["right"] not in (True, False, None):
            raise ValueError
        return int(row["content"], 16), row["right"]
    except (ValueError, KeyError, TypeError):
        step = "Use a file that `offapi grade --review` wrote, or fix or remove the line."
        raise DataError.at("not a review.", path=path, line=number, next_step=step) from None
