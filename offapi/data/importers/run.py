"""Import files of traces into one, resumable at any point, with every row accounted for.

Rows come in the files' order. Of rows with the same messages the first is kept; an id that is
already used gets a number. Both are recognised by 8 bytes of a hash, which are rebuilt from the
written rows after a kill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offapi.data.importers import guess_format, pairs, pool, records
from offapi.data.importers.importer import find_importer
from offapi.data.importers.pairs import Half
from offapi.data.importers.records import ImportJob, RecordFile
from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.importers.worker import ImportedJob, ImportSettings, decode_record
from offapi.data.importers.written import Seen
from offapi.errors import DataError
from offapi.files.staged import Stage
from offapi.progress import Progress
from offapi.text.display import plural

EXAMPLES = 3  # places listed for each reason
MEGA = 1_000_000
FORMAT = 3  # of the output and its journal
PLACE: Mapping[str, Any] = {"file": 0, "at": 0, "records": 0}
START: Mapping[str, Any] = {
    **PLACE,
    "read": 0,
    "paired": 0,
    "usable": 0,
    "documents": 0,
    "dropped": {},
    "personal": {},
    "nulls": {"count": 0, "first": ""},
}


@dataclass(frozen=True)
class ImportRequest:
    """What is to be imported.

    `strict`: a malformed row is an error; `limit`: the number of rows to read at most.
    """

    format: str
    files: Sequence[RecordFile]
    maps: Mapping[str, str]
    strict: bool = False
    limit: int | None = None

    def key(self) -> dict[str, Any]:
        """Return what the output depends on."""
        about = {
            "format": self.format,
            "maps": dict(self.maps),
            "limit": self.limit,
            "version": FORMAT,
        }
        return {**about, "files": records.file_digests(self.files)}


@dataclass(frozen=True)
class Reason:
    """Why some rows gave no trace: how many, the first places, and what could be done.

    `detail`: what was found in the first of them.
    """

    reason: str
    count: int
    places: tuple[str, ...]
    hint: str
    detail: str = ""

    @property
    def first(self) -> str:
        """The first place with what was found there."""
        return f"{self.places[0]}: {self.detail}" if self.detail else self.places[0]


@dataclass(frozen=True)
class Imported:
    """What became of the rows.

    `documents`: how many of the usable are documents with their known answer, not traces. `paired`:
    requests apart from their results, each a part of the result's row. `personal`: how many of the
    inspected rows seem to contain such data. `nulls`: how many records hold NaN or Infinity, which
    was read as null, and `null_at` the place of the first.
    """

    out: Path
    read: int
    paired: int
    usable: int
    documents: int
    dropped: tuple[Reason, ...]  # the most frequent first
    personal: Mapping[str, int]
    nulls: int
    null_at: str


def import_traces(request: ImportRequest, out_path: Path, progress: Progress) -> Imported:
    """Import into `out_path`, or resume an unfinished import of the same files.

    Raise DataError where a file cannot be read, where no row is usable, and (exit code 2) at the
    first malformed row of a strict import; nothing is then left at `out_path`.
    """
    find_importer(request.format, request.maps)
    with Stage(out_path, request.key(), START) as stage:
        if stage.resumed:
            progress.say(f"Resuming after {plural(stage.state['read'], 'row')} that were read.")
        try:
            with _others(request, out_path, progress) as others:
                settings = ImportSettings(request.format, request.maps, others)
                _import_rest(stage, request, settings, progress)
        except DataError:
            stage.discard()
            raise
        imported = _imported(out_path, stage.state)
        if not imported.usable:
            stage.discard()
            raise _nothing(request, imported)
        stage.finish()
    return imported


def _import_rest(
    stage: Stage, request: ImportRequest, settings: ImportSettings, progress: Progress
) -> None:
    total = records.total_size(request.files)
    seen = Seen.of(stage.part, stage.size)
    with progress.progress("importing (MB)", max(total // MEGA, 1)) as advance:
        if request.limit is not None and stage.state["read"] >= request.limit:
            return
        for job, done in pool.work(records.read_jobs(request.files, stage.state), settings):
            left = None if request.limit is None else request.limit - stage.state["read"]
            lines, state = _fold(stage.state, job, done, seen, request.strict, left)
            stage.append(b"".join(lines), state)
            advance(min(job.read, total) // MEGA, f"{plural(state['read'], 'row')}")
            if request.limit is not None and state["read"] >= request.limit:
                return


def _fold(
    before: Mapping[str, Any],
    job: ImportJob,
    done: ImportedJob,
    seen: Seen,
    strict: bool,
    left: int | None,
) -> tuple[list[bytes], dict[str, Any]]:
    """Return the lines to be written for a job, and the state after it."""
    lines: list[bytes] = []
    counted = {reason: dict(value) for reason, value in before["dropped"].items()}
    read, paired, known = before["read"], before["paired"], before["documents"]
    for row in done.rows():
        if row.dropped == reasons.PAIRED:
            paired += 1
            continue
        if left is not None and read - before["read"] >= left:
            break
        read += 1
        why = row.dropped or (None if seen.new(row) else reasons.DUPLICATE)
        if why is None:
            lines.append(seen.named(row))
            known += row.document
            continue
        if strict and why.malformed:
            raise _refused(job.file, row.record, why)
        _count(counted, why, f"{job.file.name}:{row.record}")
    return lines, {
        **job.end,
        "read": read,
        "paired": paired,
        "usable": before["usable"] + len(lines),
        "documents": known,
        "dropped": counted,
        "personal": dict(Counter(before["personal"]) + done.personal),
        "nulls": _nulls(before["nulls"], job, done),
    }


def _nulls(before: Mapping[str, Any], job: ImportJob, done: ImportedJob) -> dict[str, Any]:
    first = f"{job.file.name}:{done.nulls[0]}" if done.nulls else ""
    return {"count": before["count"] + len(done.nulls), "first": before["first"] or first}


def _count(counted: dict[str, dict[str, Any]], why: Dropped, place: str) -> None:
    """Count a dropped row under its reason, with the first places."""
    entry = counted.setdefault(why.reason, {"count": 0, "places": [], "hint": why.hint})
    entry.setdefault("detail", why.detail)
    entry["count"] += 1
    if len(entry["places"]) < EXAMPLES:
        entry["places"] = [*entry["places"], place]


@contextmanager
def _others(request: ImportRequest, out_path: Path, progress: Progress) -> Iterator[Path | None]:
    """Keep the database that joins requests and results of different files, if needed."""
    halves = find_importer(request.format, request.maps).halves
    if halves is None:
        yield None
        return
    base_path = out_path.with_name(f"{out_path.name}.part.join")
    with pairs.noted_halves(base_path, _halves(request, progress)) as path:
        yield path


def _halves(request: ImportRequest, progress: Progress) -> Iterator[Half]:
    importer = find_importer(request.format, request.maps)
    assert importer.halves is not None
    total = records.total_size(request.files)
    with progress.progress(
        "collecting requests and results (MB)", max(total // MEGA, 1)
    ) as advance:
        for job in records.read_jobs(request.files, START):
            for record in job.records:
                if any(mark in record for mark in importer.marks):
                    value, _ = decode_record(record)
                    yield from importer.halves(value if isinstance(value, dict) else {})
            advance(min(job.read, total) // MEGA)


def _imported(out_path: Path, state: Mapping[str, Any]) -> Imported:
    ordered = sorted(state["dropped"].items(), key=lambda pair: -pair[1]["count"])
    counted = [
        Reason(reason, each["count"], tuple(each["places"]), each["hint"], each["detail"])
        for reason, each in ordered
    ]
    return Imported(
        out=out_path,
        read=state["read"],
        paired=state["paired"],
        usable=state["usable"],
        documents=state["documents"],
        dropped=tuple(counted),
        personal=state["personal"],
        nulls=state["nulls"]["count"],
        null_at=state["nulls"]["first"],
    )


def _refused(file: RecordFile, record: int, why: Dropped) -> DataError:
    step = "Fix or remove the row, or import without --strict, which drops and counts it."
    what = f"{why.reason}: {why.detail}." if why.detail else f"{why.reason}."
    error = DataError.at(what, path=file.path, line=record, next_step=step)
    error.exit_code = 2
    return error


def _nothing(request: ImportRequest, imported: Imported) -> DataError:
    """Return the error for an import without a usable row.

    It names a format that fits better, where the named one recognised none of the rows: rows that
    were refused on purpose would be taken by one that lacks the check.
    """
    where = ", ".join(str(file.path) for file in request.files[:EXAMPLES])
    if not imported.dropped:
        return DataError(
            "there are no rows in the file.",
            where=where,
            next_step="Name a file that contains JSON.",
        )
    listed = "; ".join(
        f"{each.count:,} {each.reason} ({each.first})" for each in imported.dropped[:EXAMPLES]
    )
    hint = next(
        (each.hint for each in imported.dropped if each.hint),
        "`offapi traces import --help` lists the formats.",
    )
    unknown = all(each.reason in reasons.UNRECOGNISED for each in imported.dropped)
    better = guess_format.better_format(request.format, request.files) if unknown else ""
    step = f"It looks like the format {better!r}." if better else hint
    return DataError(
        f"none is usable of {plural(imported.read, 'row')}: {listed}.",
        where=where,
        next_step=step,
    )
