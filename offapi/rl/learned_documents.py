"""The documents that the adapter a run starts from has
learned: held out, they would show memory, not skill.

Left out: adapters whose run folder is gone, or whose data have moved; nothing is known of those.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import orjson

from offapi.data import documents, traces
from offapi.errors import DataError
from offapi.files import jsonl
from offapi.training.run import MANIFEST


class _Reads(msgspec.Struct):
    data: str | None = None
    traces: str | None = None


class _Manifest(msgspec.Struct):
    config: _Reads


def known(adapter: Path | None) -> frozenset[str]:
    """The texts that the run around `adapter` names as its
    data; empty where there is no run, or no such file.
    """
    manifest = adapter.parent / MANIFEST if adapter else None
    if manifest is None or not manifest.is_file():
        return frozenset()
    try:
        reads = msgspec.convert(orjson.loads(manifest.read_bytes()), _Manifest).config
        return frozenset().union(
            *(_texts(Path(path)) for path in (reads.data, reads.traces) if path)
        )
    except (DataError, OSError, orjson.JSONDecodeError, msgspec.ValidationError):
        return frozenset()


def _texts(path: Path) -> frozenset[str]:
    if path.is_file() and "messages" in jsonl.read(path)[0].value:
        return frozenset(trace.document for trace in traces.read(path))
    return frozenset(row.text for row in documents.read(path))
