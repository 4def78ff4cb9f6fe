"""The labels file: whole lines or none, one writer, and which label counts for a question."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from offapi.errors import DataError, RunError
from offapi.teachers.labels_file import Label, Log, read_labels, settle_labels
from offapi.teachers.teacher import Usage


def made(id: str, reason: str = "", output: str = '{"total":1}', prompt: str = "p") -> Label:
    return Label(
        id, output, "failed" if reason else "ok", Usage(7, 3), 0.25, "local:m", prompt, reason
    )


def filled(path: Path, *labels: Label) -> Path:
    with Log(path) as log:
        for label in labels:
            log.append(label)
    return path


def test_a_line_holds_the_promised_fields_and_reads_back(tmp_path: Path) -> None:
    path = filled(
        tmp_path / "new" / "labels.jsonl", made("a", output='ü\n"'), made("b", reason="truncated")
    )
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert rows[0] == {
        "id": "a",
        "output": 'ü\n"',
        "status": "ok",
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        "seconds": 0.25,
        "teacher": "local:m",
        "prompt_sha256": "p",
    }
    assert (rows[1]["status"], rows[1]["reason"]) == ("failed", "truncated")
    assert read_labels(path).labels == (made("a", output='ü\n"'), made("b", reason="truncated"))


def test_whole_lines_survive_a_cut_at_any_byte(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole.jsonl", made("a"), made("b", output="ü")).read_bytes()
    first = whole.index(b"\n")
    for cut in range(len(whole)):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(whole[:cut])
        kept = (cut >= first) + (cut >= len(whole) - 1)
        torn = cut not in (0, first, first + 1, len(whole) - 1)
        with Log(path) as log:
            assert len(log.settled) == kept, cut
            assert bool(log.warning) == torn, cut
            log.append(made("c"))
        assert [label.id for label in read_labels(path).labels] == [*"ab"[:kept], "c"], cut


def test_zeros_left_by_a_power_cut_are_dropped(tmp_path: Path) -> None:
    path = filled(tmp_path / "labels.jsonl", made("a"))
    path.write_bytes(path.read_bytes() + b"\0" * 40)
    with Log(path) as log:
        assert "40 bytes" in log.warning
    assert [label.id for label in read_labels(path).labels] == ["a"]
    assert not path.read_bytes().endswith(b"\0")


def test_a_count_that_is_true_costs_no_answer(tmp_path: Path) -> None:
    path = filled(tmp_path / "labels.jsonl", made("a"))
    row = orjson.loads(made("b").line())
    row["usage"]["prompt_tokens"] = True
    path.write_bytes(path.read_bytes() + orjson.dumps(row) + b"\n")
    _, label = read_labels(path).labels
    assert (label.id, label.output, label.usage.prompt_tokens) == ("b", made("b").output, 0)
    assert label.usage.completion_tokens == made("b").usage.completion_tokens


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (b'{"id":"a"}', "output"),
        (b'{"id":', "truncated"),
        (b'{"id":1}', "$.id"),
        (b"\xff{}", "line 2"),
        (b'["a"]', "must be an object, got a list"),
    ],
)
def test_a_row_that_is_not_a_label_is_named_and_stays(
    tmp_path: Path, row: bytes, says: str
) -> None:
    path = filled(tmp_path / "labels.jsonl", made("a"))
    path.write_bytes(before := path.read_bytes() + row + b"\n" + made("b").line())
    with pytest.raises(DataError, match="line 2") as caught:
        Log(path)
    assert says in str(caught.value)
    assert caught.value.next_step
    assert path.read_bytes() == before


def test_a_second_writer_is_refused_but_not_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    script = (
        "import pathlib, time\nfrom offapi.teachers.labels_file import Log\nwith"
        f" Log(pathlib.Path({str(path)!r})):\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script + "    print('held', flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="another process"):
            Log(path)
    finally:
        holder.kill()
        holder.wait()
    filled(path, made("a"))


def test_a_full_disk_leaves_only_whole_lines(tmp_path: Path) -> None:
    path = filled(tmp_path / "labels.jsonl", made("a"))
    before = path.read_bytes()
    with (
        Log(path) as log,
        largest_file(len(before) + 20),
        pytest.raises(DataError, match=r"the label cannot be written") as e,
    ):
        log.append(made("b"))
    assert "Free some space" in e.value.next_step
    assert path.read_bytes() == before
    filled(path, made("b"))
    assert [label.id for label in read_labels(path).labels] == ["a", "b"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the kernel refuse any file of this process larger than `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_be_opened_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "labels.jsonl"):
        with pytest.raises(DataError, match="cannot open"):
            Log(path)


def test_only_the_owner_can_read_labels(tmp_path: Path) -> None:
    assert os.stat(filled(tmp_path / "labels.jsonl", made("a"))).st_mode & 0o077 == 0


def test_ok_counts_before_failed_and_later_before_earlier() -> None:
    first, second, good = made("a", reason="truncated"), made("a", reason="timed out"), made("a")
    assert settle_labels([first, second])[good.key] is second
    assert settle_labels([first, good])[good.key] is good
    assert settle_labels([good, second])[good.key] is good
    assert len(settle_labels([good, made("a", prompt="other")])) == 2
