"""A run folder: manifest, metrics, and checkpoints that survive kills, full disks and bit flips.

    runs/NAME/manifest.json  metrics.jsonl  console.log  checkpoints/step-000010/

Folders are 0700, files 0600. Left out: what a checkpoint holds (the recipe's files), and
runs on more than one machine. See `offapi.files.atomic` for how files are written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import orjson

from offapi.errors import OffapiError, RunError, describe_error, nearest
from offapi.files import atomic
from offapi.files.append import append_whole, remedy
from offapi.files.lock import hold
from offapi.network import guard
from offapi.text.display import plural, shorten, terminal_safe
from offapi.training import checkpoints, host
from offapi.training.checkpoints import Checkpoint

MANIFEST, METRICS, CHECKPOINTS, LOCK = "manifest.json", "metrics.jsonl", "checkpoints", ".lock"
CONSOLE = "console.log"  # what the command said, attempt after attempt
PLAN = "plan.json"  # rows and tokens of one pass, and the steps of the whole training
NUMPY = orjson.OPT_SERIALIZE_NUMPY
LONGEST_NAME = 100  # bytes; a folder's own name, with room for a writer's suffix
SECONDS_TO_WAIT = 2.0

_held: set[Path] = set()  # runs this process has locked


@dataclass(frozen=True)
class Run:
    """One run folder. Writing needs `lock`."""

    path: Path

    @classmethod
    def create(cls, root: Path, name: str, manifest: Mapping[str, Any]) -> Self:
        """Create `root`/`name`.

        `manifest` is what the run depends on: config, seed, hashes of model, data and task. Raises
        RunError when the name is taken or the folder cannot be created.
        """
        check_name(name)
        path = (root / name).absolute()
        if path.exists():
            step = "Resume it with --resume, or choose another name."
            raise RunError("a run of that name exists already.", where=str(path), next_step=step)
        about = {**manifest, "created": _now(), "attempts": []}
        try:
            root.mkdir(parents=True, exist_ok=True)
            with atomic.new_folder(path) as folder:
                (folder / CHECKPOINTS).mkdir(mode=0o700)
                atomic.write_file(folder / MANIFEST, _json(about))
            atomic.sync_path(path.parent)
        except OSError as error:
            step = "Choose a writable folder, with --out or `out` in the recipe."
            raise RunError(
                f"the run folder cannot be created: {error.strerror}.",
                where=str(path),
                next_step=step,
            ) from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return the run in `path`; raise RunError when there is none."""
        path = path.absolute()
        if not (path / MANIFEST).is_file():
            names = sorted(other.parent.name for other in path.parent.glob(f"*/{MANIFEST}"))
            raise RunError(
                "there is no run here.", where=str(path), next_step=nearest(path.name, names)
            )
        return cls(path)

    @property
    def manifest(self) -> dict[str, Any]:
        """What the run depends on, and its attempts so far.

        Raises RunError when it cannot be read.
        """
        try:
            manifest: dict[str, Any] = orjson.loads((self.path / MANIFEST).read_bytes())
        except (OSError, ValueError) as error:
            step = "Restore the file from a backup, or start a new run."
            raise RunError(
                f"the manifest is unreadable ({error}).",
                where=str(self.path / MANIFEST),
                next_step=step,
            ) from error
        return manifest

    @contextmanager
    def lock(self, **facts: str | int) -> Iterator[None]:
        """Hold the run for writing, as one attempt in its manifest, which has `facts`.

        Raises RunError when another process holds it.
        """
        with hold(self.path / LOCK, "this run", str(self.path)):
            _held.add(self.path)
            self._sweep()
            outcome, reason = "failed", None
            try:
                about = {"versions": host.versions(), "host": host.facts(), **facts}
                self._attempt(started=_now(), step=0, **about)
                yield
                outcome = "finished"
            except KeyboardInterrupt:
                outcome = "interrupted"
                raise
            except Exception as error:
                reason = _reason(error)
                raise
            finally:
                # after a failure, the first error is the one to report
                later: AbstractContextManager[None, bool | None] = suppress(OffapiError)
                if outcome == "finished":
                    later = nullcontext()
                with later:
                    why = {"error": reason} if reason else {}
                    self._attempt(ended=_now(), outcome=outcome, **why, network=guard.report())
                _held.discard(self.path)

    def resume(self, manifest: Mapping[str, Any]) -> Checkpoint | None:
        """Return the checkpoint to resume from, or None, with the metrics cut back to it.

        Raises RunError naming the first field of `manifest` that is not what the run began with.
        """
        self._must_hold()
        difference = _difference(self.manifest, orjson.loads(_json(manifest)))
        if difference:
            field, old, new = difference
            what = f"{field} was {_shown(old)} when this run began and is {_shown(new)} now."
            step = "Resume with the value it began with, or start a new run."
            raise RunError(what, where=str(self.path / MANIFEST), next_step=step)
        checkpoint = self.latest()
        self._cut_metrics(checkpoint.metrics_bytes if checkpoint else 0)
        self._attempt(step=checkpoint.step if checkpoint else 0)
        return checkpoint

    def log(self, step: int, metrics: Mapping[str, Any], name: str = METRICS) -> None:
        """Append one line to metrics.jsonl, or to another file `name`.

        Resuming cuts back only metrics.jsonl. Raises NotCommitted, with no part of the line kept.
        """
        self._must_hold()
        line = _json({"step": step, **metrics}) + b"\n"
        descriptor = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            append_whole(descriptor, line)
        except OSError as error:
            where = str(self.path / name)
            raise atomic.NotCommitted(
                f"could not be written: {error.strerror}.",
                where=where,
                next_step=f"{remedy(error)} Then resume with --resume.",
            ) from error
        finally:
            os.close(descriptor)

    def write(self, name: str, data: bytes) -> Path:
        """Write the file `name` in the run folder, whole or not at all."""
        self._must_hold()
        atomic.write_file(self.path / name, data)
        return self.path / name

    def write_folder(self, name: str, files: Mapping[str, bytes]) -> Path:
        """Write the folder `name` in the run folder, whole or not at all, over an earlier one."""
        self._must_hold()
        atomic.write_folder(self.path / name, files, {}, replace=True)
        return self.path / name

    def checkpoint(
        self, step: int, files: Mapping[str, bytes], meta: Mapping[str, Any]
    ) -> Checkpoint:
        """Commit `files` and `meta` as checkpoint `step`, then drop old ones.

        Committing the same one twice is not an error. Raises NotCommitted (earlier checkpoints
        stay) or DurabilityUncertain.
        """
        self._must_hold()
        return checkpoints.commit(self.path / CHECKPOINTS, step, files, meta, self._sync_metrics())

    def count_scoring(self, data: str, n: int) -> int:
        """Note that `n` documents of the file with hash `data` were scored; return its count.

        This is not an attempt of the run: whoever scores holds the lock for the moment. Raises
        RunError when another process holds it.
        """
        with self.alone():
            manifest = self.manifest
            scored = [*manifest.get("scored", []), {"data": data, "n": n, "at": _now()}]
            atomic.write_file(self.path / MANIFEST, _json({**manifest, "scored": scored}))
        return sum(entry["data"] == data for entry in scored)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run without beginning an attempt; do nothing inside `lock`.

        Waits a little, as another process that notes a scoring is done in a moment. Raises RunError
        as `lock` does.
        """
        if self.path in _held:
            yield
            return
        with hold(self.path / LOCK, "this run", str(self.path), SECONDS_TO_WAIT):
            yield

    def latest(self) -> Checkpoint | None:
        """Return the newest intact checkpoint, or None; raise RunError when none is intact."""
        return checkpoints.latest(self.path / CHECKPOINTS)

    def _sweep(self) -> None:
        """Remove leftovers of killed writers, here and in folders that are not runs themselves."""
        inside = [
            path for path in self.path.iterdir() if path.is_dir() and not (path / MANIFEST).exists()
        ]
        for folder in (*inside, self.path):
            checkpoints.sweep(folder)

    def _sync_metrics(self) -> int:
        """Make metrics.jsonl durable and return its length in bytes."""
        descriptor = os.open(self.path / METRICS, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            atomic.sync(descriptor)
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def _cut_metrics(self, length: int) -> None:
        path = self.path / METRICS
        have = path.stat().st_size if path.exists() else 0
        if have < length:
            step = "Restore the file, or start a new run."
            raise RunError(
                f"must have {plural(length, 'byte')} or more, as the checkpoint counted, got"
                f" {have}.",
                where=str(path),
                next_step=step,
            )
        if have > length:
            os.truncate(path, length)

    def _attempt(self, **facts: Any) -> None:
        """Add to the last attempt in the manifest.

        `started` begins a new one, and so does any fact where a full disk prevented that.
        """
        manifest = self.manifest
        if "started" in facts or not manifest["attempts"]:
            manifest["attempts"].append({})
        manifest["attempts"][-1] |= facts
        atomic.write_file(self.path / MANIFEST, _json(manifest))

    def _must_hold(self) -> None:
        if self.path not in _held:
            raise RunError(
                "this run is not locked.",
                where=str(self.path),
                next_step="Write inside `with run.lock():`.",
            )


def _reason(error: Exception) -> dict[str, str]:
    """Return why an attempt failed, as the manifest keeps it."""
    if not isinstance(error, OffapiError):
        return {"code": "unexpected", "what": describe_error(error), "where": "", "next": ""}
    words = {"what": error.what, "where": error.where, "next": error.next_step}
    return {"code": error.code, **{name: terminal_safe(text) for name, text in words.items()}}


def check_name(name: str) -> None:
    """Raise RunError for a name that no run folder can have."""
    plain = bool(name) and Path(name).name == name and name.isprintable() and name == name.strip()
    if not plain or name.startswith((".", "-")) or len(name.encode()) > LONGEST_NAME:
        raise RunError(
            f"a run cannot be named {shorten(repr(name), 60, '...')}.",
            next_step=f"Use a plain name of at most {LONGEST_NAME} bytes, without slashes.",
        )


def _difference(old: Any, new: Any, field: str = "") -> tuple[str, Any, Any] | None:
    """Return the first field of `new` that differs in `old`, as (dotted name, old, new)."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return None if old == new else (field, old, new)
    # at the top level the run has more keys than its caller
    keys = {**old, **new} if field else new.keys()
    differences = (
        _difference(old.get(key), new.get(key), f"{field}.{key}" if field else key) for key in keys
    )
    return next((difference for difference in differences if difference), None)


def _shown(value: Any) -> str:
    return shorten("missing" if value is None else orjson.dumps(value).decode(), 60, "...")


def _json(value: Mapping[str, Any]) -> bytes:
    return orjson.dumps(value, option=NUMPY)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
