"""`offapi grade`: what it writes, refuses and survives, and its questions to a person."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
from recipe_folder import Done, apart, start, until

TASK = """
import itertools, os
import offapi
from offapi import checks

def plausible(document, answer, context):
    {EVIL}
    total = (answer.value or {}).get("total", 0)
    return checks.Verdict(1.0 if total < 1000 else 0.5, "plausible" if total < 1000 else "too much")

task = offapi.Task(
    name="totals",
    instructions="Read the total.",
    schema={"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
    checks={"json": (checks.is_json, 1.0), "plausible": (plausible, 1.0)},
    match={"total": "number"},
    check_seconds=60,
)
"""


def trace(i: int, total: object, **more: object) -> dict[str, Any]:
    """Return a trace about its own receipt."""
    answer = json.dumps({"total": total}) if isinstance(total, int | float) else total
    question = f"Receipt {i * 7919 % 100003}. We thank you for your order number {i}. Sum: {i}.50"
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": f"t{i}", "messages": messages, **more}


class Folder:
    """A task, traces, and the command run on them."""

    def __init__(self, path: Path, rows: list[dict[str, Any]], evil: str = "pass") -> None:
        self.path = path
        (path / "task.py").write_text(TASK.replace("{EVIL}", evil))
        self.traces = path / "traces.jsonl"
        self.traces.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.out = path / "graded.jsonl"
        self.words = [
            "grade",
            "--task",
            path / "task.py",
            "--traces",
            self.traces,
            "--out",
            self.out,
        ]

    def run(self, *more: object) -> Done:
        return apart(*self.words, *more)

    def rows(self, name: str = "graded.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]


def test_every_row_gets_its_grade_and_keeps_its_other_bytes(tmp_path: Path) -> None:
    rows = [
        trace(1, 1.5),
        trace(2, 2000.0, gold={"total": 2.5}, note={"big": 1}),
        trace(3, "no object"),
        trace(4, 4.5),
    ]
    folder = Folder(tmp_path, rows)
    odd = '{"id": "odd",  "price": 1.10, "huge": 123456789012345678901234567890, '
    odd += '"messages": [{"role":"user","content":"é ü"},{"role":"assistant","content":"{}"}] }'
    labelled = (
        '{"id": "label", "document": "Sum: 7.50", "recorded_label": {"total": 7.5}, "grade":'
        ' {"score": 0.1}}'
    )
    with folder.traces.open("a") as file:
        file.write(odd + "\n\n" + labelled + "\n" + '{"id": "none", "document": "Sum: 8.50"}')
    ran = folder.run("--kept", tmp_path / "kept.jsonl", "--show", 1, "--json")
    assert ran.returncode == 0, ran.stderr

    graded = folder.rows()
    assert [row["grade"].get("score") for row in graded] == [1.0, 0.75, 0.5, 1.0, 1.0, 1.0, None]
    checks = {
        "json": {"score": 1.0, "reason": "one JSON object"},
        "plausible": {"score": 0.5, "reason": "too much"},
    }
    assert graded[1]["grade"]["checks"] == checks
    assert graded[1]["grade"]["task"] == graded[0]["grade"]["task"]
    assert len(graded[1]["grade"]["task"]) == 64
    assert graded[6]["grade"] == {"error": "there is no recorded answer"}
    assert [{k: v for k, v in row.items() if k != "grade"} for row in graded[:4]] == rows
    assert folder.out.read_text().splitlines()[4].startswith(odd[:-2] + ',"grade":{"score":1.0,')

    result = json.loads(ran.stdout)
    assert (result["rows"], result["failed"], result["unanswered"], result["kept"]) == (7, 0, 1, 4)
    assert result["dropped"] == {
        "without an answer": 1,
        "whose answer is not one JSON object": 1,
        "below the threshold": 1,
    }
    assert sum(result["histogram"]) == 6
    assert result["histogram"][10] == 4
    assert [row["id"] for row in folder.rows("kept.jsonl")] == ["t1", "t4", "odd", "label"]
    assert (result["worst"][0]["id"], result["worst"][0]["score"]) == ("t3", 0.5)
    assert result["best"][0]["score"] == 1.0
    assert not list(tmp_path.glob("*.part*"))


def test_a_file_of_blank_lines_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK.replace("{EVIL}", ""))
    (tmp_path / "traces.jsonl").write_text("\n \n")
    words = [
        "grade",
        "--task",
        str(tmp_path / "task.py"),
        "--traces",
        str(tmp_path / "traces.jsonl"),
    ]
    done = apart(*words)
    assert (done.returncode, "there are no rows in it" in done.stderr) == (1, True), done.stderr


def test_a_person_reads_tables(tmp_path: Path) -> None:
    rows = [
        trace(i, i + 0.5 if i % 3 else 5000.0, gold={"total": i + 0.5}, group=f"g{i % 5}")
        for i in range(60)
    ]
    ran = Folder(tmp_path, rows).run("--cap", 7, "--cap-by", "group", "--show", 2)
    assert (ran.returncode, ran.stdout) == (0, "")
    for words in (
        "60 rows: 0 without an answer",
        "plausible  66.7 [54.1–77.3]",
        "grade 1             40     35            100.0 [91.2–100.0]",
        "best of each group",
        "Your rule keeps 35 of 60 rows; dropped: 20 below the threshold, 5 over the cap.",
        "35 rows are too few: do not train on fewer than 50",
        "Ceiling: 100.0 [90.1–100.0]% of the kept rows are right in every field (35 known).",
        (
            "At 1 and above, 100.0 [91.2–100.0]% are right in every field, but 40 rows with a"
            " known answer cannot confirm 95%"
        ),
        "too much",
    ):
        assert words in ran.stderr, ran.stderr


def test_rows_near_an_evaluation_document_are_refused(tmp_path: Path) -> None:
    text = "The quick brown fox jumps over 12 lazy dogs near bank 99 of the river in spring"
    rows = [trace(i, 1.5) for i in range(4)]
    rows[2]["messages"][0]["content"] = f"Read this: {text}!"
    (tmp_path / "val.jsonl").write_text(
        json.dumps({"id": "v", "document": text, "gold": {"total": 1}}) + "\n"
    )
    ran = Folder(tmp_path, rows).run(
        "--against", tmp_path / "val.jsonl", "--json", "--kept", tmp_path / "kept.jsonl"
    )
    result = json.loads(ran.stdout)
    pair = {"row": "t2", "document": "v", "runs": 1.0, "numbers": 1.0}
    assert result["near_evaluation"] == [pair]
    assert json.loads((tmp_path / "decontamination.jsonl").read_text()) == pair
    assert result["dropped"] == {"near an evaluation document": 1}
    assert (result["kept"], result["evaluation"]) == (3, 1)


def test_killed_at_any_time_it_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    rows = [trace(i, i + 0.5 if i % 7 else 3000.0, note="x" * 2000) for i in range(1000)]
    slow = "import time; time.sleep(0.003)"
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole, killed = Folder(tmp_path / "whole", rows, slow), Folder(tmp_path / "killed", rows, slow)
    assert whole.run("--kept", whole.path / "kept.jsonl").returncode == 0

    journal = killed.path / "graded.jsonl.part.json"
    process = subprocess.Popen(
        start(*killed.words), stderr=subprocess.DEVNULL, start_new_session=True
    )
    until(lambda: journal.exists() or process.poll() is not None)
    assert process.poll() is None, "it ended before it could be killed"
    process.kill()
    process.wait()
    before = json.loads(journal.read_text())["state"]["rows"]
    assert 0 < before < 1000
    again = killed.run("--kept", killed.path / "kept.jsonl")
    assert again.returncode == 0, again.stderr
    assert f"Resuming after {before:,} graded rows." in again.stderr
    for name in ("graded.jsonl", "kept.jsonl"):
        assert (killed.path / name).read_bytes() == (whole.path / name).read_bytes()


class Person:
    """A person at a terminal."""

    def __init__(self, command: list[str]) -> None:
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.execv(command[0], command)
        self.seen = ""

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + 60
        while words not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.screen], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.screen, 65536).decode("utf-8", "replace")
                except OSError as error:
                    raise AssertionError(self.seen) from error

    def press(self, key: str) -> None:
        self.seen = ""
        os.write(self.screen, key.encode())

    def leave(self) -> int:
        """Read to the end and return the exit code."""
        while True:
            try:
                data = os.read(self.screen, 65536)
            except OSError:
                break
            self.seen += data.decode("utf-8", "replace")
            if not data:
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_person_is_asked_once_and_remembered(tmp_path: Path) -> None:
    rows = [trace(i, i + 0.5 if i < 20 else 5000.0) for i in range(24)]
    rows[3]["messages"][0]["content"] += "\n\x1b[2Jline\n" * 60
    folder = Folder(tmp_path, rows)
    command = start(*folder.words, "--review", 6, "--want-precision", 0.5)
    person = Person(command)
    person.wait_for("1 of 6")
    person.wait_for("[q] stop ")
    assert "\x1b[2J" not in person.seen
    assert "5000" not in person.seen, "the best band is asked about first"
    for key, next_words in (
        ("x", "[q] stop"),
        ("m", "1 of 6"),
        ("y", "2 of 6"),
        ("n", "3 of 6"),
        ("s", "4 of 6"),
    ):
        person.press(key)
        person.wait_for(next_words)
        person.wait_for("[q] stop ")
    person.press("q")
    assert person.leave() == 0
    reviews = [json.loads(line) for line in (tmp_path / "reviews.jsonl").read_text().splitlines()]
    assert [row["right"] for row in reviews] == [True, False, None]
    assert "by review on 2 rows:" in person.seen

    person = Person(command)
    for place in range(1, 5):
        person.wait_for(f"{place} of 4")
        person.wait_for("[q] stop ")
        person.press("y")
    assert person.leave() == 0
    again = [json.loads(line) for line in (tmp_path / "reviews.jsonl").read_text().splitlines()]
    assert again[:3] == reviews
    assert len({row["id"] for row in again}) == 7
    result = json.loads(folder.run("--json").stdout)["agreement"]
    assert (result["judged"], result["source"]) == (6, "review")


def test_control_c_stops_it_and_leaves_no_process(tmp_path: Path) -> None:
    folder = Folder(tmp_path, [trace(i, 1.5) for i in range(3000)], "import time; time.sleep(0.01)")
    process = subprocess.Popen(
        start(*folder.words), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until((tmp_path / "graded.jsonl.part").exists)
    time.sleep(1.0)
    helpers = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert len(helpers) >= 2
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    until(lambda: not alive(process.pid), seconds=10)
    until(lambda: not any(map(psutil.pid_exists, helpers)), seconds=10)


def alive(group: int) -> bool:
    """Return whether a process group has a process left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_wrapped_answers_are_counted_and_others_named(tmp_path: Path) -> None:
    fenced = [trace(i, f'```json\n{{"total": {i}}}\n```') for i in range(3)]
    listed = [trace(10 + i, f'[{{"total": {i}}}]') for i in range(4)]
    folder = Folder(tmp_path, [*fenced, *listed, trace(20, ""), trace(21, "No.")])
    ran = folder.run()
    assert ran.returncode == 0, ran.stderr
    said = " ".join(ran.stderr.split())
    assert (
        "9 rows: 1 without an answer, 5 with an answer that is not one JSON object, 0 that could not be"
        in said
    )
    assert "3 of 8 answers stood in a code fence, which was set aside." in said
    assert "a list of one object (4), text without JSON (1). Take the object out of" in said
    result = json.loads(folder.run("--json").stdout)
    assert result["dropped"] == {"without an answer": 1, "whose answer is not one JSON object": 5}
    unusable = {"a list of one object": 4, "text without JSON": 1}
    assert result["forms"]["unusable"] == unusable


def test_the_files_written_and_the_fields_that_do_not_fit_are_named(tmp_path: Path) -> None:
    rows = [trace(i, json.dumps({"category": "billing", "priority": "high"})) for i in range(3)]
    folder = Folder(tmp_path, rows)
    val = tmp_path / "val.jsonl"
    val.write_text(json.dumps({"id": "v", "document": "Another text.", "gold": {"total": 1}}))
    ran = folder.run("--against", val)
    assert ran.returncode == 0, ran.stderr
    for path in (folder.out, tmp_path / "decontamination.jsonl"):
        assert path.is_file()
        assert str(path) in ran.stderr
    assert "The answers have the fields category, priority; the task asks for total." in ran.stderr
    fitting = tmp_path / "fitting"
    fitting.mkdir()
    assert "the task asks for" not in Folder(fitting, [trace(1, 1.5), *rows]).run().stderr
