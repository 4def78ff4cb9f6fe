"""Hashes that identify a file, a folder or a text.

Runs, labels and reviews store them, so none of them may ever change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from offapi.files.capture_file import CaptureFile


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_path(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, or of the names and bytes of all files in a folder.

    The name of `path` itself does not count. Of kept answers it is that of their rows.
    """
    kept = CaptureFile.find(path)
    if kept is not None:
        return kept.sha256()
    if not path.is_dir():
        return sha256_file(path)
    return sha256_files(path, (file for file in path.rglob("*") if file.is_file()))


def sha256_files(folder: Path, files: Iterable[Path]) -> str:
    """Return the SHA-256 of what `sha256sum` prints for `files`, named relative to `folder`."""
    named = sorted(files)
    lines = (f"{sha256_file(file)}  {file.relative_to(folder).as_posix()}\n" for file in named)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sha256_named(path: Path) -> str:
    """Return the SHA-256 of a file with its name, or of the names and bytes of a folder's files.

    Unlike with `sha256_path`, a renamed file or folder has another hash; kept answers have not.
    """
    kept = CaptureFile.find(path)
    if kept is not None:
        return kept.sha256()
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            name = file.relative_to(path.parent).as_posix()
            digest.update(name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def hash64(text: str | bytes) -> int:
    """Hash a text, lone surrogates included, or bytes to 64 bits, the same on every machine."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
