"""What a person said of rows, remembered beside the
traces: yes, no or skipped, a line each, at once on disk.

A row is known by a hash of its document and answer, so that it is never asked about twice.
Left out: several people, whose agreement with each other would be worth knowing.
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
        """The reviews in a file, none where there is no file.

        A last line that was cut off is passed over.
        """
        data = path.read_bytes() if path.is_file() else b""
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        return cls(
            path, dict(_parse(path, number, line) for number, line in enumerate(lines, start=1))
        )

    def add(self, id: str, content: int, right: bool | None) -> Reviews:
        """With one more answer, which is on disk when this returns.

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
        """Right or wrong by row, of the rows that were judged and could be graded."""
        said = {content: right for content, right in self.answers.items() if right is not None}
        rows = np.flatnonzero(
            np.isin(table["content"], np.array(list(said), np.uint64)) & ~np.isnan(table["score"])
        )
        return {int(row): said[int(table["content"][row])] for row in rows}

    def wanted(self, table: Table, count: int, seed: int = 0) -> list[int]:
        """Rows to ask about, so that `count` are judged: as
        many from each band of scores as there are, at random.
        """
        judged = self.of(table)
        asked = np.isin(table["content"], np.array(list(self.answers), np.uint64))
        open_rows = ~asked & ~np.isnan(table["score"]) & table["has_answer"]
        band, shuffled = bands(table["score"]), np.array(order(seed, 0, len(table)), np.int64)
        left = [
            iter(shuffled[open_rows[shuffled] & (band[shuffled] == i)].tolist())
            for i in range(len(STRATA) + 1)
        ]
        have = [sum(int(band[row]) == i for row in judged) for i in range(len(STRATA) + 1)]
        found: list[int] = []
        while len(judged) + len(found) < count and left:
            i = min(range(len(left)), key=lambda each: (have[each], -each))
            row = next(left[i], None)
            if row is None:
                del left[i], have[i]
            else:
                found.append(row)
                have[i] += 1
        return found


def _parse(path: Path, number: int, line: bytes) -> tuple[int, bool | None]:
    try:
        row = orjson.loads(line)
        if row["right"] not in (True, False, None):
            raise ValueError
        return int(row["content"], 16), row["right"]
    except (ValueError, KeyError, TypeError):
        step = "Is this a file of `offapi grade --review`? Mend or remove the line."
        raise DataError.at("not a review.", path=path, line=number, next_step=step) from None
