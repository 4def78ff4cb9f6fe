"""The files of an import: every layout gives the same traces, and what is wrong is said with place."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from offapi.data import traces
from offapi.data.importers import records
from offapi.data.importers.run import Imported, ImportRequest, import_traces
from offapi.errors import DataError
from offapi.files import contents
from offapi.progress import Advance

ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": f"Bär {number}\n}} {{"},
            {"role": "assistant", "content": json.dumps({"total": number})},
        ]
    }
    for number in range(5)
]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
LAYOUTS: dict[str, Callable[[], bytes]] = {
    "lines": lambda: LINES.encode(),
    "utf-8 with a mark": lambda: LINES.encode("utf-8-sig"),
    "utf-16": lambda: LINES.encode("utf-16"),
    "utf-16 without a mark": lambda: LINES.encode("utf-16-le"),
    "gzip of utf-16": lambda: gzip.compress(LINES.encode("utf-16")),
    "array": lambda: json.dumps(ROWS).encode(),
    "indented array": lambda: json.dumps(ROWS, indent=2).encode(),
    "objects": lambda: "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
}


class Quiet:
    """Progress that nobody sees."""

    def say(self, text: str = "") -> None:
        pass

    @contextmanager
    def progress(self, title: str, total: int | None = None) -> Iterator[Advance]:
        yield lambda done, note="": None


def imported(path: Path) -> Imported:
    out = path.with_name("out.jsonl")
    request = ImportRequest("openai-ft", records.find_files([path], but=out), {})
    return import_traces(request, out, Quiet())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_traces(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(LAYOUTS[layout]())
    assert imported(path).usable == len(ROWS)
    read = traces.read(tmp_path / "out.jsonl")
    assert [list(trace.messages) for trace in read] == [row["messages"] for row in ROWS]


def test_pieces_of_any_size_give_the_same_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.jsonl"
    lines = [b"", b"{}", b'{"a": "' + b"x" * 40 + b'"}', b"", b'{"b": 1}', b'{"c": 2}']
    for end in (b"", b"\n"):
        path.write_bytes(b"\n".join(lines) + end)
        files = records.find_files([path], but=tmp_path / "none")
        for size in (1, 2, 3, 7, 60, 1000):
            monkeypatch.setattr(contents, "PIECE", size)
            start = {"file": 0, "at": 0, "records": 0}
            jobs = list(records.read_jobs(files, start))
            assert [record for job in jobs for record in job.records] == lines
            ended: list[bytes] = []
            for job in jobs:  # resumed after each job, the rest follows
                ended += job.records
                rest = records.read_jobs(files, job.end)
                assert [*ended, *(each for later in rest for each in later.records)] == lines


def test_nan_is_read_as_null_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [json.dumps(ROWS[0]), json.dumps({**ROWS[1], "score": float("nan")})]
    path.write_text("\n".join([*lines, json.dumps({**ROWS[2], "score": float("-inf")})]))
    done = imported(path)
    assert (done.usable, done.nulls, done.null_at) == (3, 2, "log.jsonl:2")


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"messages": ["caf\xe9"]}', "not UTF-8", "byte 0xE9, '\u00e9' in Windows-1252"),
        (b"{'messages': []}", "not JSON", "column 2 (')"),
        (b'{"messages": [', "not JSON", "unexpected end of data"),
        (b'{"messages": None}', "not JSON", "column 14 (None)"),
    ],
)
def test_the_first_bad_row_is_told_with_place_and_cause(
    tmp_path: Path, line: bytes, reason: str, detail: str
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(LINES.encode() + b"\n" + line + b"\n" + line)
    (dropped,) = imported(path).dropped
    assert (dropped.reason, dropped.count, dropped.places[0]) == (reason, 2, "log.jsonl:6")
    assert detail in dropped.detail
    path.write_bytes(line)
    with pytest.raises(DataError) as caught:
        imported(path)
    assert "(log.jsonl:1: " in caught.value.what
    assert detail in caught.value.what


def test_a_long_line_is_read_in_linear_time_and_refused_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "LARGEST", 24 << 20)
    monkeypatch.setattr(contents, "PIECE", 4 << 10)  # 6000 pieces: joined one by one they take long
    path = tmp_path / "log.jsonl"
    files = []
    for size in (20 << 20, 32 << 20):
        path.write_bytes(b"{" + b"x" * size)
        files = records.find_files([path], but=tmp_path / "none")
        begun = time.process_time()
        jobs = records.read_jobs(files, {"file": 0, "at": 0, "records": 0})
        if size > contents.LARGEST:
            with pytest.raises(DataError, match="one line must not exceed 24 MiB"):
                list(jobs)
        else:
            assert [len(job.records[0]) for job in jobs] == [size + 1]
        assert time.process_time() - begun < 5
