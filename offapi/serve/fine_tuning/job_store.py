"""Uploaded files, and fine-tuning jobs with their events, in a folder that survives any kill.

    DIR/files/ID/object.json  content         DIR/jobs/ID/job.json  events.jsonl  ...

One server at a time holds the folder. Folders are 0700, files 0600. Left out: training
(`offapi.serve.fine_tuning.job_runner`).
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import time
from typing import Any, Literal, Self

import msgspec
import orjson

from offapi.errors import RunError
from offapi.files import atomic
from offapi.files.append import append_whole
from offapi.files.lock import hold
from offapi.serve.errors import ApiError

Status = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
OPEN: tuple[Status, ...] = ("queued", "validating_files", "running")
OBJECT, CONTENT, JOB, EVENTS = "object.json", "content", "job.json", "events.jsonl"
Level = Literal["info", "warn", "error"]


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """One file: OpenAI's members, and its number in the order of arrival."""

    id: str
    number: int
    filename: str
    purpose: str
    bytes: int
    created_at: int = field(default_factory=lambda: int(time()))


@dataclass(frozen=True, kw_only=True)
class FineTuningJob:
    """One job, as it was asked for and as far as it has come.

    `base` and `task_file` are what the recipe names; without a task file the recipe finds its own.
    """

    id: str
    number: int
    model: str
    base: str
    recipe: Literal["sft", "filtered_sft"]
    training_file: str
    validation_file: str | None = None
    task_file: str | None = None
    suffix: str | None = None
    seed: int = 0
    epochs: int = 1
    batch_size: int = 1
    lr_multiplier: float = 1.0
    metadata: Mapping[str, str] = field(default_factory=dict)
    created_at: int = field(default_factory=lambda: int(time()))
    status: Status = "queued"
    error: Mapping[str, str | None] | None = None
    estimated_finish: int | None = None
    finished_at: int | None = None
    trained_tokens: int | None = None
    steps: int | None = None
    train_loss: float | None = None  # of the last step
    result_files: tuple[str, ...] = ()
    deleted: bool = False  # its model

    @property
    def model_name(self) -> str:
        """The name of its model, once there is one."""
        return f"ft:{self.model}:{self.suffix or ''}::{self.id.removeprefix('ftjob-')}"

    @property
    def is_open(self) -> bool:
        """Whether it is still to be done."""
        return self.status in OPEN


class JobStore:
    """The folder's files and jobs. Every method may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, StoredFile] = {}
        self._jobs: dict[str, FineTuningJob] = {}
        self._number = 0
        self._lock = threading.RLock()

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Self]:
        """Hold the folder, made if missing. Raise RunError where another server holds it."""
        try:
            for path in (folder, folder / "files", folder / "jobs"):
                path.mkdir(mode=0o700, parents=path == folder, exist_ok=True)
        except OSError as error:
            why = f"the folder cannot be made: {error.strerror}."
            step = "Choose a writable folder with --jobs."
            raise RunError(why, where=str(folder), next_step=step) from error
        with hold(folder / ".lock", "this folder of jobs", str(folder)):
            store = cls(folder.absolute())
            store._read()
            yield store

    def _read(self) -> None:
        for kind in ("files", "jobs"):
            for left in (self.folder / kind).glob(f"{atomic.TEMPORARY}*"):
                shutil.rmtree(left, ignore_errors=True)
        files = [_decode(path, StoredFile) for path in self.folder.glob(f"files/*/{OBJECT}")]
        jobs = [_decode(path, FineTuningJob) for path in self.folder.glob(f"jobs/*/{JOB}")]
        self._files = {each.id: each for each in sorted(files, key=lambda each: each.number)}
        self._jobs = {each.id: each for each in sorted(jobs, key=lambda each: each.number)}
        self._number = max((each.number for each in (*files, *jobs)), default=0)
        for job in jobs:
            _drop_torn_line(self.job_folder(job.id) / EVENTS)

    @contextmanager
    def new_file(self) -> Iterator[Path]:
        """Yield a path to write a file's content to; it is gone after the block unless added."""
        folder = self.folder / "files" / f"{atomic.TEMPORARY}{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        try:
            yield folder / CONTENT
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add_file(self, content: Path, filename: str, purpose: str) -> StoredFile:
        """Keep what was written to a path of `new_file`. Raise OSError."""
        with self._lock:
            added = StoredFile(
                id=f"file-{secrets.token_hex(12)}",
                number=self._next(),
                filename=filename,
                purpose=purpose,
                bytes=content.stat().st_size,
            )
            atomic.write_file(content.parent / OBJECT, orjson.dumps(added))
            target = self.folder / "files" / added.id
            content.parent.rename(target)
            atomic.sync_path(target.parent)
            self._files[added.id] = added
            return added

    def file(self, id: str, param: str = "file_id") -> StoredFile:
        """Return a file. Raise ApiError (404) where there is none."""
        with self._lock:
            found = self._files.get(id)
        if found is None:
            raise ApiError(404, "There is no such file.", param=param, code="not_found")
        return found

    def files(self) -> list[StoredFile]:
        """Return all files, oldest first."""
        with self._lock:
            return list(self._files.values())

    def content(self, id: str) -> Path:
        """Return where a file's content is."""
        return self.folder / "files" / self.file(id).id / CONTENT

    def delete_file(self, id: str) -> None:
        """Delete a file. Jobs keep what they learn from."""
        with self._lock:
            atomic.remove_folder(self.folder / "files" / self.file(id).id)
            del self._files[id]

    def add_job(self, wanted: Mapping[str, Any], copies: Mapping[str, str]) -> FineTuningJob:
        """Queue a job; `copies` are the names in its folder of the files that it learns from."""
        with self._lock:
            job = FineTuningJob(id=f"ftjob-{secrets.token_hex(6)}", number=self._next(), **wanted)
            with atomic.new_folder(self.job_folder(job.id)) as folder:
                for name, file in copies.items():
                    _link(self.content(file), folder / name)
                atomic.write_file(folder / JOB, orjson.dumps(job))
            atomic.sync_path(self.folder / "jobs")
            self._jobs[job.id] = job
        self.add_event(job.id, f"Created fine-tuning job: {job.id}")
        return job

    def job(self, id: str) -> FineTuningJob:
        """Return a job. Raise ApiError (404) where there is none."""
        with self._lock:
            found = self._jobs.get(id)
        if found is None:
            raise ApiError(404, "There is no such fine-tuning job.", code="not_found")
        return found

    def jobs(self) -> list[FineTuningJob]:
        """Return all jobs, oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def job_folder(self, id: str) -> Path:
        """Return the folder of a job."""
        return self.folder / "jobs" / id

    def update(self, id: str, **changes: Any) -> bool:
        """Change an open job on disk and here; return False for one that is open no longer."""
        with self._lock:
            if not self._jobs[id].is_open:
                return False
            self._write(replace(self._jobs[id], **changes))
            return True

    def expect(self, id: str, end: int) -> None:
        """Note when an open job will end, in memory: it is known again soon after a kill."""
        with self._lock:
            if self._jobs[id].is_open:
                self._jobs[id] = replace(self._jobs[id], estimated_finish=end)

    def mark_deleted(self, id: str) -> None:
        """Note that a finished job's model is deleted."""
        with self._lock:
            self._write(replace(self._jobs[id], deleted=True))

    def add_event(
        self, id: str, message: str, level: Level = "info", data: Mapping[str, Any] | None = None
    ) -> None:
        """Add an event to a job; with `data` it is one of metrics."""
        path = self.job_folder(id) / EVENTS
        event = {"message": message, "level": level, "created_at": int(time()), "data": data}
        with self._lock:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                append_whole(file, orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))
            finally:
                os.close(file)

    def events(self, id: str) -> Sequence[Mapping[str, Any]]:
        """Return a job's events, oldest first."""
        path = self.job_folder(self.job(id).id) / EVENTS
        with self._lock:
            lines = path.read_bytes().splitlines() if path.exists() else []
        return [orjson.loads(line) for line in lines]

    def _write(self, job: FineTuningJob) -> None:
        atomic.write_file(self.job_folder(job.id) / JOB, orjson.dumps(asdict(job)))
        self._jobs[job.id] = job

    def _next(self) -> int:
        self._number += 1
        return self._number


def _decode(path: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        step = "Restore the file from a backup, or remove its folder."
        what = "the file is damaged or of another version."
        raise RunError(what, where=str(path), next_step=step) from error


def _link(source: Path, target: Path) -> None:
    """Let a job keep a file's content, also when the file is deleted."""
    with suppress(OSError):  # a file system without hard links
        os.link(source, target)
        return
    shutil.copyfile(source, target)
    target.chmod(0o600)


def _drop_torn_line(path: Path) -> None:
    """Cut what a kill left of a line."""
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
