"""The documents that a run's starting adapter has learned: held out, they would show memory.

Left out: adapters whose run folder is gone or whose data have moved; nothing is known of those.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import orjson

from offapi.data.rows import read_rows, row_text
from offapi.training.run import MANIFEST


class _Reads(msgspec.Struct):
    data: str | None = None
    traces: str | None = None


class _Manifest(msgspec.Struct):
    config: _Reads


def known(adapter: Path | None) -> frozenset[str]:
    """Return the texts that the run around `adapter` names as its data.

    Empty where there is no run, or no such file. Raises DataError where the file is there and a row
    of it cannot be read, because what was learned could then be held out unnoticed.
    """
    manifest = adapter.parent / MANIFEST if adapter else None
    if manifest is None or not manifest.is_file():
        return frozenset()
    try:
        reads = msgspec.convert(orjson.loads(manifest.read_bytes()), _Manifest).config
    except (OSError, orjson.JSONDecodeError, msgspec.ValidationError):
        return frozenset()
    paths = [Path(path) for path in (reads.data, reads.traces) if path]
    return frozenset(row_text(row) for path in paths if path.exists() for row in read_rows(path))
