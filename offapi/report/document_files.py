"""The documents of a report, from the files that a run or a comparison read, if unchanged.

Left out: the earlier turns of traces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from offapi.data.documents import KnownAnswer
from offapi.data.rows import Row, read_rows, row_text
from offapi.errors import DataError, OffapiError
from offapi.files.hashing import sha256_named, sha256_path
from offapi.report.run_files import Record, mapping
from offapi.text.display import left_out

LONG = 20_000  # characters; the rest is cut


@dataclass(frozen=True)
class DocumentSource:
    """A file that may hold the documents, with its recorded digests, if any.

    If it is not where it was, a file of its name in one of the `around` folders will do.
    """

    path: Path
    digests: frozenset[str] = frozenset()
    around: tuple[Path, ...] = ()

    def rows(self) -> list[Row]:
        """Return the rows of the unchanged file. Raise DataError if there is none."""
        places = [self.path, *(folder / self.path.name for folder in self.around)]
        found = [path for path in dict.fromkeys(places) if path.exists()] or [self.path]
        refused = ""
        for path in found:
            try:
                rows = read_rows(path)
                if not self.digests or not self.digests.isdisjoint(_hashes(path)):
                    return rows
                reason = f"{path} has changed since the run: its documents are left out."
            except (OffapiError, OSError) as error:
                reason = f"{path} cannot be read: {getattr(error, 'what', error)}"
            refused = refused or reason
        raise DataError(refused)


def read_texts(
    sources: Sequence[DocumentSource], golds: Mapping[str, KnownAnswer | None], ids: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Return the texts of the documents `ids` that can still be read, and why some are missing."""
    missing, notes = set(ids), []
    texts: dict[str, str] = {}
    for source in sources:
        if not missing:
            break
        try:
            rows = source.rows()
        except DataError as error:
            notes.append(error.what)
            continue
        for row in rows:
            if row.id in missing and golds.get(row.id, row.gold) == row.gold:
                texts[row.id] = cut(row_text(row), LONG)
        missing -= texts.keys()
    if missing and not notes:
        notes = ["The run does not record where the documents are."]
    return texts, notes if missing else []


def run_sources(record: Record) -> list[DocumentSource]:
    """Return the files that may hold a run's documents, in the order to try them."""
    scorings = record.manifest.get("scored") or ()
    digests = [scoring.get("data") for scoring in scorings if isinstance(scoring, dict)]
    scored = frozenset(digest for digest in digests if isinstance(digest, str))
    around = places_around(record.path)
    sources = []
    for name in ("val", "data", "traces"):
        path = record.config.get(name)
        if isinstance(path, str):
            recorded = mapping(record.manifest, "sha256").get(name)
            known = frozenset({recorded} if isinstance(recorded, str) else ())
            sources.append(
                DocumentSource(Path(path), known | (scored if name == "val" else known), around)
            )
    if record.recipe == "demo":
        sources.insert(0, DocumentSource(record.path / "test.jsonl"))
    return sources


def places_around(folder: Path) -> tuple[Path, ...]:
    """Return where a run's documents lie if everything was moved: in it, or around it."""
    return folder, folder.parent, folder.parent.parent


def _hashes(path: Path) -> tuple[str, str]:
    return sha256_path(path), sha256_named(path)


def cut(value: str, most: int) -> str:
    """Return at most the first `most` characters, and how many more there are."""
    return value if len(value) <= most else f"{value[:most]}\n{left_out(len(value) - most)}"
