"""Files and folders that are on disk whole or not at all, also after a kill or a power cut.

The protocol: write beside the target under a temporary name, fsync every file, then the
manifest (sizes and SHA-256) last, fsync the folder, rename, fsync the parent. Left out:
file systems whose rename is not atomic (some network mounts), and Windows.
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
from offapi.files.append import write_all
from offapi.files.hashing import sha256_file

MANIFEST = "manifest.json"
TEMPORARY = ".tmp-"
SCHEMA = 1
SORTED = orjson.OPT_SORT_KEYS
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, quota or largest file


class NotCommitted(RunError):
    """Nothing was changed: the write failed before its rename."""

    code = "not_committed"


class DurabilityUncertain(RunError):
    """The new version is in place, but the disk did not confirm that it survives a power cut."""

    code = "durability_uncertain"


class Damaged(RunError):
    """A folder does not hold what its manifest says."""

    code = "damaged"


def write_file(path: Path, data: bytes) -> None:
    """Replace `path` by `data` (mode 0600).

    Raises NotCommitted, with the old content intact, or DurabilityUncertain.
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
    """Create the folder `path` (mode 0700) with `files`
    and a manifest that also holds `meta` (JSON values).

    `replace`: an earlier folder there stays until the new one is on disk whole; without it there
    must be none. Raises NotCommitted, with nothing left behind, or DurabilityUncertain.
    """
    for name in files:
        if name == MANIFEST or name.startswith(".") or Path(name).name != name:
            raise ValueError(
                f"{name!r} cannot be a file in {path}: plain names only, and not {MANIFEST}"
            )
    doomed = _beside(path)
    with _committing(path):
        if path.exists() and not replace:
            raise FileExistsError(errno.EEXIST, "it exists already", str(path))
        with new_folder(path) as temporary:
            for name, data in files.items():
                _write(temporary / name, data)
            _write(temporary / MANIFEST, _manifest(files, meta))
            sync_path(temporary)
            if path.exists():  # no rename replaces a folder that holds something
                path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


@contextmanager
def new_folder(path: Path, temporary: Path | None = None, *, mode: int = 0o700) -> Iterator[Path]:
    """Make a hidden folder beside `path` to fill, and rename it to `path` at the end of the block.

    Whatever goes wrong, nothing is left. Nothing is synced: the caller knows what must be.
    `temporary` is the hidden folder's name where others look for it. Raises OSError.
    """
    temporary = temporary or _beside(path)
    try:
        temporary.mkdir(mode=mode)
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def need_room(path: Path, size: int) -> None:
    """Raise the OSError of a full disk, naming `path`,
    where fewer than `size` bytes are free for it.
    """
    if shutil.disk_usage(path.absolute().parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def verify(path: Path) -> dict[str, Any]:
    """The `meta` of the folder `path`. Raises Damaged unless every byte is what was written."""
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
    """Delete a folder so that no half of it is ever seen under its name."""
    doomed = _beside(path)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def sync(descriptor: int) -> None:
    """Flush a file or folder to the platter. macOS's plain fsync stops at the drive's cache."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError:  # not every file system knows it
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
    """Return a name in the folder of `path` that is free, hidden, and swept away if it stays."""
    return path.parent / f"{TEMPORARY}{path.name}-{uuid.uuid4().hex}"


@contextmanager
def _committing(path: Path) -> Iterator[None]:
    """Write and rename in the block, then sync the parent; on failure say how far it came."""
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
        what = f"written, but the disk did not confirm it: {error.strerror or error}."
        raise DurabilityUncertain(
            what, where=str(path), next_step="Check the disk before you rely on it."
        ) from error


def _step(error: OSError) -> str:
    if error.errno in FULL:
        return (
            "Free some space (or raise the quota or file size limit) and run it again; nothing was"
            " changed."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Make the folder writable, or choose another one; nothing was changed."
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        return "Choose another name, or remove it first."
    return "Check the path and the disk, and run it again; nothing was changed."
