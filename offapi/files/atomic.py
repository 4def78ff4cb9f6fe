"""Files and folders that are on disk whole or not at all, even after a kill or a power cut.

The protocol: write next to the target under a temporary name, fsync every file, the manifest
(sizes and SHA-256) last, fsync the folder, rename, fsync the parent. Left out: file systems whose
rename is not atomic (some network mounts), and Windows.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from offapi.errors import RunError
from offapi.files.append import remedy, write_all
from offapi.files.hashing import sha256_file

MANIFEST = "manifest.json"
TEMPORARY = ".tmp-"
SCHEMA = 1
SORTED = orjson.OPT_SORT_KEYS


class NotCommitted(RunError):
    """The write failed before its rename, so nothing was changed."""

    code = "not_committed"


class DurabilityUncertain(RunError):
    """The new version is in place, but the disk did not confirm that it survives a power cut."""

    code = "durability_uncertain"


class Damaged(RunError):
    """A folder does not match its manifest."""

    code = "damaged"


def write_file(path: Path, data: bytes) -> None:
    """Replace `path` by `data` (mode 0600).

    Raise NotCommitted, with the old content intact, or DurabilityUncertain.
    """
    temporary = _beside(path)
    with _committing(path):
        try:
            _write(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_folder(
    path: Path, files: Mapping[str, bytes], meta: Mapping[str, Any], *, replace: bool = False
) -> None:
    """Create the folder `path` (mode 0700) with `files` and a manifest.

    `meta` (JSON values) is stored in the manifest. With `replace`, an earlier folder stays until
    the new one is on disk whole; without it there must be none. Raise NotCommitted, with nothing
    left behind, or DurabilityUncertain.
    """
    for name in files:
        if name == MANIFEST or name.startswith(".") or Path(name).name != name:
            raise ValueError(
                f"a file in {path} must have a plain name other than {MANIFEST}, got {name!r}"
            )
    doomed = _beside(path)
    with _committing(path):
        if path.exists() and not replace:
            raise FileExistsError(errno.EEXIST, "the folder already exists", str(path))
        with new_folder(path) as temporary:
            for name, data in files.items():
                _write(temporary / name, data)
            _write(temporary / MANIFEST, _manifest(files, meta))
            sync_path(temporary)
            if path.exists():  # a rename cannot replace a folder that is not empty
                path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


@contextmanager
def new_folder(path: Path, temporary: Path | None = None, *, mode: int = 0o700) -> Iterator[Path]:
    """Create a hidden folder next to `path` to fill; rename it to `path` at the end of the block.

    After an error nothing is left. Nothing is synced: that is up to the caller. `temporary` is the
    hidden folder's name if others look for it. Raise OSError.
    """
    temporary = temporary or _beside(path)
    try:
        temporary.mkdir(mode=mode)
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def need_room(path: Path, size: int) -> None:
    """Raise the OSError of a full disk if fewer than `size` bytes are free for `path`."""
    if shutil.disk_usage(path.absolute().parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def verify(path: Path) -> dict[str, Any]:
    """Return the `meta` of the folder `path`. Raise Damaged if any byte has changed."""
    try:
        manifest = orjson.loads((path / MANIFEST).read_bytes())
        digest = manifest.pop("digest")
        if hashlib.sha256(orjson.dumps(manifest, option=SORTED)).hexdigest() != digest:
            raise Damaged(f"{MANIFEST} was changed.", where=str(path))
        for name, entry in manifest["files"].items():
            if sha256_file(path / name) != entry["sha256"]:
                raise Damaged(f"{name} is not the file that was written.", where=str(path))
        meta: dict[str, Any] = manifest["meta"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"incomplete or damaged ({error}).", where=str(path)) from error
    return meta


def remove_folder(path: Path) -> None:
    """Delete a folder such that a part of it is never seen under its name."""
    doomed = _beside(path)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def sync(descriptor: int) -> None:
    """Flush a file or folder to the disk. macOS's plain fsync stops at the drive's cache."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError:  # not every file system supports it
            pass
    os.fsync(descriptor)


def sync_path(path: Path) -> None:
    """Make a file's content durable, or the renames and new names inside a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(descriptor, data)
        sync(descriptor)
    finally:
        os.close(descriptor)


def _manifest(files: Mapping[str, bytes], meta: Mapping[str, Any]) -> bytes:
    entries = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    manifest = {"schema": SCHEMA, "files": entries, "meta": dict(meta)}
    digest = hashlib.sha256(orjson.dumps(manifest, option=SORTED)).hexdigest()
    return orjson.dumps({**manifest, "digest": digest}, option=SORTED | orjson.OPT_INDENT_2)


def _beside(path: Path) -> Path:
    """Return a free, hidden name in the folder of `path`; leftovers are removed later."""
    return path.parent / f"{TEMPORARY}{path.name}-{uuid.uuid4().hex}"


@contextmanager
def _committing(path: Path) -> Iterator[None]:
    """Sync the parent after the block wrote and renamed; on failure raise how far it came."""
    try:
        yield
    except OSError as error:
        raise NotCommitted(
            f"could not be written: {error.strerror or error}.",
            where=str(path),
            next_step=_step(error),
        ) from error
    try:
        sync_path(path.parent)
    except OSError as error:
        what = f"the data is written, but the disk did not confirm it: {error.strerror or error}."
        raise DurabilityUncertain(
            what, where=str(path), next_step="Check the disk before you rely on it."
        ) from error


def _step(error: OSError) -> str:
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        return "Choose another name, or remove what is there."
    return f"{remedy(error)} Nothing was changed; then run the command again."
