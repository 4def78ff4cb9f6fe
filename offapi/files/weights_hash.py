"""A hash that identifies the weights of a model folder, whatever its name, settings and tokenizer.

A stored model's files were hashed when they were checked; those hashes are taken while size, time
of change and inode are as they were then.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson

from offapi.files.hashing import sha256_file

# what was read and found unchanged, so that not every start reads half a gigabyte
VERIFIED = ".verified.json"


def sha256_weights(folder: Path) -> str:
    """Return the SHA-256 of what `sha256sum model*.safetensors` prints in `folder`."""
    before = read_verified(folder)
    lines = []
    for path in sorted(folder.glob("model*.safetensors")):
        known = before.get(path.name)
        sha256 = known[0] if isinstance(known, list) and known else ""
        if not sha256 or known != stamp_file(path, sha256):
            sha256 = sha256_file(path)
        lines.append(f"{sha256}  {path.name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def stamp_file(path: Path, sha256: str) -> list[Any]:
    """Return a file's hash with what changes when the file does."""
    now = path.stat()
    return [sha256, now.st_size, now.st_mtime_ns, now.st_ino]


def read_verified(folder: Path) -> dict[str, Any]:
    """Return the stamps of the files that were read and found unchanged."""
    try:
        stamps = orjson.loads((folder / VERIFIED).read_bytes())
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}
