"""The documents of a report, from the files that a run or a comparison read, if unchanged.

Left out: the earlier turns of traces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offapi.data.rows import read_rows, row_text
from offapi.errors import OffapiError
from offapi.files.hashing import sha256_path
from offapi.report.run_files import Record
from offapi.text.display import left_out

LONG = 20_000  # characters; the rest is cut


@dataclass(frozen=True)
class DocumentSource:
    """A file that may hold the documents, with its recorded digests, if any."""

    path: Path
    digests: frozenset[str] = frozenset()


def read_texts(
    sources: Sequence[DocumentSource], golds: Mapping[str, Mapping[str, Any]], ids: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Return the texts of the documents `ids` that can still be read, and why some are missing."""
    wanted, notes = set(ids), []
    for source in sources:
        path = source.path
        try:
            rows = read_rows(path)
            changed = bool(source.digests) and sha256_path(path) not in source.digests
        except (OffapiError, OSError) as error:
            notes.append(f"{path} cannot be read: {getattr(error, 'what', error)}")
            continue
        if changed:
            notes.append(f"{path} has changed since the run: its documents are left out.")
            continue
        same = [row for row in rows if row.id in wanted and golds.get(row.id, row.gold) == row.gold]
        if same:
            return {row.id: cut(row_text(row), LONG) for row in same}, notes
    return {}, notes or ["The run does not record where the documents are."]


def run_sources(record: Record) -> list[DocumentSource]:
    """Return the files that may hold a run's documents, in the order to try them."""
    scorings = record.manifest.get("scored") or ()
    digests = [scoring.get("data") for scoring in scorings if isinstance(scoring, dict)]
    recorded = frozenset(digest for digest in digests if isinstance(digest, str))
    val, data = (record.config.get(name) for name in ("val", "data"))
    sources = []
    if isinstance(val, str):
        sources.append(DocumentSource(Path(val), recorded))
    if record.recipe == "demo":
        sources.append(DocumentSource(record.path / "test.jsonl"))
    if isinstance(data, str):
        sources.append(DocumentSource(Path(data)))
    return sources


def cut(value: str, most: int) -> str:
    """Return at most the first `most` characters, and how many more there are."""
    return value if len(value) <= most else f"{value[:most]}\n{left_out(len(value) - most)}"
