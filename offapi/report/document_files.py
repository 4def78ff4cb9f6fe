"""Where a report's documents are: in the files that a
run or a comparison read, as long as those are the same.

Left out: traces' earlier turns.
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
    """Where documents may lie; `digests` of the file
    when it was read, none where nobody noted it.
    """

    path: Path
    digests: frozenset[str] = frozenset()


def read_texts(
    sources: Sequence[DocumentSource], golds: Mapping[str, Mapping[str, Any]], ids: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """The texts of the documents `ids`, as far as
    they can still be read, and why some are missing.
    """
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
    return {}, notes or ["Nothing says where the documents are."]


def run_sources(record: Record) -> list[DocumentSource]:
    """Where a run's documents may lie, the first that has them to be used."""
    config = record.config
    scored = {
        one.get("data") for one in record.manifest.get("scored") or () if isinstance(one, dict)
    }
    noted = frozenset(digest for digest in scored if isinstance(digest, str))
    made = DocumentSource(record.path / "test.jsonl") if record.recipe == "demo" else None
    val, data = (config.get(name) for name in ("val", "data"))
    return [
        *([DocumentSource(Path(val), noted)] if isinstance(val, str) else []),
        *([made] if made else []),
        *([DocumentSource(Path(data))] if isinstance(data, str) else []),
    ]


def cut(value: str, most: int) -> str:
    """At most the first `most` characters, and how many more there are."""
    return value if len(value) <= most else f"{value[:most]}\n{left_out(len(value) - most)}"
