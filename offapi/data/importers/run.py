"""Files of traces imported into one, resumable at any point, each row accounted for.

The rows come in the files' order. Of rows with the same messages the first stays; an id that is
taken gets a number. Both are known by 8 bytes of a hash, and after a kill from the rows already
written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from offapi.data.importers import guess_format, pairs, pool, records
from offapi.data.importers.importer import find_importer
from offapi.data.importers.pairs import Half
from offapi.data.importers.records import ImportJob, RecordFile
from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.importers.worker import ImportedJob, ImportSettings
from offapi.data.importers.written import Seen
from offapi.errors import DataError
from offapi.files.staged import Stage
from offapi.progress import Progress

EXAMPLES = 3  # places named for each reason
MEGA = 1_000_000
FORMAT = 2  # of the output and its journal
PLACE: Mapping[str, Any] = {"file": 0, "at": 0, "records": 0}
START: Mapping[str, Any] = {
    **PLACE,
    "read": 0,
    "paired": 0,
    "usable": 0,
    "dropped": {},
    "personal": {},
}


@dataclass(frozen=True)
class ImportRequest:
    """What is to be imported.

    `strict`: a malformed row is an error; `limit`: only so many rows are read.
    """

    format: str
    files: Sequence[RecordFile]
    maps: Mapping[str, str]
    strict: bool = False
    limit: int | None = None

    def key(self) -> dict[str, Any]:
        """What the output depends on."""
        about = {
            "format": self.format,
            "maps": dict(self.maps),
            "limit": self.limit,
            "version": FORMAT,
        }
        return {**about, "files": records.file_digests(self.files)}


@dataclass(frozen=True)
class Reason:
    """Why some rows gave no trace: how many, the first places, and what could be done."""

    reason: str
    count: int
    places: tuple[str, ...]
    hint: str


@dataclass(frozen=True)
class Imported:
    """What became of the rows. `paired`: requests that lay
    apart from their results, each a part of the result's row.

    `personal`: rows, of those looked at, that seem to hold such data.
    """

    out: Path
    read: int
    paired: int
    usable: int
    dropped: tuple[Reason, ...]  # the most frequent first
    personal: Mapping[str, int]


def import_traces(request: ImportRequest, out: Path, said: Progress) -> Imported:
    """Import into `out`, or go on with an unfinished `out` made of the same files.

    DataError where a file cannot be read, where no row is usable, and (exit code 2) at the first
    malformed row of a strict import; then nothing is left at `out`.
    """
    find_importer(request.format, request.maps)
    with Stage(out, request.key(), START) as stage:
        if stage.resumed:
            said.say(f"Going on after {stage.state['read']:,} rows read before.")
        try:
            with _others(request, out, said) as others:
                _go_on(stage, request, ImportSettings(request.format, request.maps, others), said)
        except DataError:
            stage.discard()
            raise
        found = _imported(out, stage.state)
        if not found.usable:
            stage.discard()
            raise _nothing(request, found)
        stage.finish()
    return found


def _go_on(stage: Stage, request: ImportRequest, settings: ImportSettings, said: Progress) -> None:
    total = records.total_size(request.files)
    seen = Seen.of(stage.part, stage.size)
    with said.progress("importing (MB)", max(total // MEGA, 1)) as advance:
        if request.limit is not None and stage.state["read"] >= request.limit:
            return
        for job, done in pool.work(records.read_jobs(request.files, stage.state), settings):
            left = None if request.limit is None else request.limit - stage.state["read"]
            lines, state = _fold(stage.state, job, done, seen, request.strict, left)
            stage.append(b"".join(lines), state)
            advance(min(job.read, total) // MEGA, f"{state['read']:,} rows")
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
    """The lines to be written for a job, and the state behind them."""
    lines: list[bytes] = []
    counted = {reason: dict(value) for reason, value in before["dropped"].items()}
    read, paired = before["read"], before["paired"]
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
            continue
        if strict and why.malformed:
            raise _refused(job.file, row.record, why)
        entry = counted.setdefault(why.reason, {"count": 0, "places": [], "hint": why.hint})
        entry["count"] += 1
        if len(entry["places"]) < EXAMPLES:
            entry["places"] = [*entry["places"], f"{job.file.name}:{row.record}"]
    return lines, {
        **job.end,
        "read": read,
        "paired": paired,
        "usable": before["usable"] + len(lines),
        "dropped": counted,
        "personal": dict(Counter(before["personal"]) + done.personal),
    }


@contextmanager
def _others(request: ImportRequest, out: Path, said: Progress) -> Iterator[Path | None]:
    """The database in which requests and results of different
    files find each other, where the format has such.
    """
    halves = find_importer(request.format, request.maps).halves
    if halves is None:
        yield None
        return
    with pairs.noted_halves(out.with_name(f"{out.name}.part.join"), _halves(request, said)) as path:
        yield path


def _halves(request: ImportRequest, said: Progress) -> Iterator[Half]:
    importer = find_importer(request.format, request.maps)
    assert importer.halves is not None
    total = records.total_size(request.files)
    with said.progress(
        "looking for requests and results apart (MB)", max(total // MEGA, 1)
    ) as advance:
        for job in records.read_jobs(request.files, START):
            for record in job.records:
                if any(mark in record for mark in importer.marks):
                    yield from importer.halves(_decoded(record))
            advance(min(job.read, total) // MEGA)


def _decoded(record: bytes) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _imported(out: Path, state: Mapping[str, Any]) -> Imported:
    ordered = sorted(state["dropped"].items(), key=lambda pair: -pair[1]["count"])
    counted = [
        Reason(reason, each["count"], tuple(each["places"]), each["hint"])
        for reason, each in ordered
    ]
    return Imported(
        out, state["read"], state["paired"], state["usable"], tuple(counted), state["personal"]
    )


def _refused(file: RecordFile, record: int, why: Dropped) -> DataError:
    step = "Mend or remove it, or import without --strict, which leaves it out and counts it."
    what = f"{why.reason}: {why.detail}." if why.detail else f"{why.reason}."
    error = DataError.at(what, path=file.path, line=record, next_step=step)
    error.exit_code = 2
    return error


def _nothing(request: ImportRequest, found: Imported) -> DataError:
    """The error where no row is usable. Where another format fits the file better, it is named."""
    where = ", ".join(str(file.path) for file in request.files[:EXAMPLES])
    if not found.dropped:
        return DataError(
            "there are no rows in it.", where=where, next_step="Name a file with JSON in it."
        )
    listed = "; ".join(
        f"{each.count:,} {each.reason} ({each.places[0]})" for each in found.dropped[:EXAMPLES]
    )
    hint = next(
        (each.hint for each in found.dropped if each.hint),
        "See the formats: `offapi traces import --help`.",
    )
    better = guess_format.better_format(request.format, request.files)
    step = f"It looks like the format {better!r}." if better else hint
    return DataError(
        f"none of {found.read:,} rows is usable: {listed}.", where=where, next_step=step
    )
