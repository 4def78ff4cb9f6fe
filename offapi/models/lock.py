"""One stored model folder: whole or absent, and locked by the size and sha256 of each file.

The lock catches damage and mistakes, not somebody who can write to the store: they can write the
lock too.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from offapi.errors import ModelError, RunError
from offapi.files import atomic
from offapi.files.append import FULL
from offapi.files.atomic import sync_path, write_file
from offapi.files.hashing import sha256_file
from offapi.files.lock import wait_for
from offapi.files.weights_hash import VERIFIED, read_verified, stamp_file
from offapi.models.settings_files import read_json
from offapi.text.display import plural

# files that people edit
SETTINGS = (
    *("chat_template.jinja", "config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json"),
)
LOCK, PARITY = "offapi.lock.json", "parity.json"
MAKE_ROOM = "Free some space, or set OFFAPI_HOME to a folder on another disk."


@contextmanager
def whole(target: Path) -> Iterator[Path | None]:
    """Yield a hidden folder to fill, renamed to `target` at the end; None when `target` exists.

    Whatever goes wrong, nothing is left. Other processes wait for their turn. Raise ModelError in
    place of OSError.
    """
    try:
        with _turn(target.parent):
            if target.exists():
                yield None
                return
            with atomic.new_folder(target, _hidden(target)) as folder:
                yield folder
                for path in (*folder.iterdir(), folder):
                    sync_path(path)
            sync_path(target.parent)
    except OSError as error:
        full = error.errno in FULL
        cause = "the disk is full" if full else error.strerror or str(error)
        raise ModelError(
            f"{cause}; nothing was stored.",
            where=str(target.parent if full else error.filename or target),
            next_step=MAKE_ROOM if full else "Check the path and its permissions.",
        ) from error


@contextmanager
def _turn(models: Path) -> Iterator[None]:
    """Hold the store; first clear what a killed process left."""
    models.mkdir(parents=True, exist_ok=True)
    with wait_for(models / ".lock"):
        for stale in models.glob(".tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
        yield


def remove(folder: Path) -> None:
    """Delete a stored folder; it disappears from the store by one rename."""
    with _turn(folder.parent):
        doomed = _hidden(folder)
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _hidden(folder: Path) -> Path:
    """Return a free name next to `folder` that `_turn` clears if it stays."""
    return folder.with_name(f".tmp-{uuid4().hex}")


def write(folder: Path, source: Mapping[str, Any]) -> None:
    """Hash every file of `folder` into its lock, which replaces the old one by rename."""
    files = {path.name: _entry(path) for path in sorted(folder.glob("[!.]*")) if path.name != LOCK}
    lock = {"version": 1, "source": source, "files": files}
    write_file(folder / LOCK, orjson.dumps(lock, option=orjson.OPT_INDENT_2))


def put(folder: Path, name: str, content: bytes) -> None:
    """Write one file into a stored folder and its lock."""
    lock = read(folder)
    write_file(folder / name, content)
    lock["files"][name] = _entry(folder / name)
    write_file(folder / LOCK, orjson.dumps(lock, option=orjson.OPT_INDENT_2))


def read(folder: Path) -> dict[str, Any]:
    """Return the lock of a stored folder. Raise ModelError when it is missing or damaged."""
    path = folder / LOCK
    if not path.is_file():
        raise _changed(path, "the file is missing")
    lock = read_json(path)
    match lock:
        case {"files": dict(files), "source": dict()} if all(map(_is_entry, files.items())):
            return dict(lock)
    raise _changed(path, "it is not a lock that offapi wrote")


def check_sizes(folder: Path) -> None:
    """Raise ModelError unless the locked files, and no others, are there with their sizes."""
    files = read(folder)["files"]
    for name, entry in files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise _changed(path, "the file is missing")
        if path.stat().st_size != entry["size"]:
            raise _changed(
                path, f"it has {plural(path.stat().st_size, 'byte')} instead of {entry['size']:,}"
            )
    if extra := sorted({path.name for path in folder.glob("[!.]*")} - {*files, LOCK}):
        raise _changed(folder / extra[0], "it is not one of the files that were added")


def check_content(folder: Path, *, again: bool) -> None:
    """Raise ModelError naming the first locked file whose sha256 has changed.

    A file that was read before, with unchanged size, time of change and inode, is not read unless
    `again`. So only `again` finds a bit that the disk lost.
    """
    before, now = {} if again else read_verified(folder), {}
    for name, entry in read(folder)["files"].items():
        now[name] = stamp_file(folder / name, entry["sha256"])
        if before.get(name) != now[name] and sha256_file(folder / name) != entry["sha256"]:
            with suppress(OSError):
                (folder / VERIFIED).unlink(missing_ok=True)
            raise _changed(folder / name, "its content has changed since it was added")
    if before != now:
        with suppress(OSError, RunError):  # a read-only store is read each time
            write_file(folder / VERIFIED, orjson.dumps(now))


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_file(path), "size": path.stat().st_size}


def _is_entry(item: tuple[str, Any]) -> bool:
    name, entry = item
    plain = Path(name).name == name
    return (
        plain
        and isinstance(entry, dict)
        and isinstance(entry.get("size"), int)
        and "sha256" in entry
    )


def _changed(path: Path, what: str) -> ModelError:
    name = path.parent.name
    step = f"Run `offapi models remove {name}`, and add the model again."
    if path.name in SETTINGS:
        step += (
            " To change a setting or the chat template on purpose, edit a copy of the folder, and"
            " add the copy under another name."
        )
    return ModelError(f"this stored model is damaged: {what}.", where=str(path), next_step=step)
