"""Grading a file: what stops it, what does not, and that memory and file agree."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offapi import cli
from offapi.data import traces
from offapi.errors import DataError, GateFailed, RunError
from offapi.files import staged
from offapi.grading import select, table
from offapi.grading.file import grade_file, inputs, kept_file, worker
from offapi.grading.file.row_reader import Lines
from offapi.grading.keep import Keep
from offapi.grading.report import report
from offapi.grading.truth import from_gold
from offapi.progress import Advance
from offapi.task import load_task
from offapi.workers.supervised import CallNote

TASK = """
import itertools, os
import offapi
from offapi import checks

def plausible(document, answer, context):
    {EVIL}
    total = (answer.value or {}).get("total", 0)
    return checks.Verdict(1.0 if total < 1000 else 0.5, "plausible")

task = offapi.Task(
    name="totals",
    instructions="Read the total.",
    schema={"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
    checks={"json": (checks.is_json, 1.0), "plausible": (plausible, 1.0)},
    match={"total": "number"},
    check_seconds=1,
)
"""


class Quiet:
    """Progress that is remembered."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.done: list[int] = []

    def say(self, text: str = "") -> None:
        self.said.append(text)

    @contextmanager
    def progress(self, title: str, total: int | None = None) -> Iterator[Advance]:
        yield lambda done, note="": self.done.append(done)


def trace(i: int, total: object, **more: object) -> dict[str, Any]:
    """Return a trace about a receipt of its own."""
    answer = json.dumps({"total": total}) if isinstance(total, int | float) else total
    question = f"Receipt {i * 7919 % 100003}. We thank you for your order number {i}. Sum: {i}.50"
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": f"t{i}", "messages": messages, **more}


def prepare(
    folder: Path, rows: list[dict[str, Any]], evil: str = "pass", **options: Any
) -> inputs.GradingInputs:
    """Write a task and a traces file to `folder` and read them."""
    (folder / "task.py").write_text(TASK.replace("{EVIL}", evil))
    (folder / "traces.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    given: dict[str, Any] = {"cap_by": None, "gold": None, "against": (), **options}
    return inputs.read(folder / "task.py", folder / "traces.jsonl", **given)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("evil", "said"),
    [
        ('raise KeyError("x")', "check 'plausible', row 't7': the check raised KeyError: 'x'."),
        (
            'return checks.Verdict(float("nan"), "")',
            "check 'plausible', row 't7': the check's score must be in [0, 1], got nan.",
        ),
        ("os._exit(5)", "row 't7': check 'plausible' ended the process (exit code 5)."),
        (
            "sum(itertools.repeat(1))",
            "row 't7': check 'plausible' took more than 1.3 s, ignored the time limit and was ended",
        ),
        (
            "exec('while True: pass')",
            "check 'plausible', row 't7': the answer's checks took more than check_seconds = 1",
        ),
        ("exit('no answer')", "row 't7': the check raised SystemExit: no answer."),
        ("raise KeyboardInterrupt", "row 't7': the check raised KeyboardInterrupt."),
        ("raise GeneratorExit", "row 't7': the check raised GeneratorExit."),
        ("raise type('Panic', (BaseException,), {})", "row 't7': the check raised Panic."),
        ("raise ValueError('\\ud800')", "row 't7': the check raised ValueError: \\ud800."),
        (
            "return checks.Verdict(1.0, 'Shop\\ud800')",
            "row 't7': the check's reason holds '\\ud800', which is half a character and no text.",
        ),
        (
            "return checks.Verdict(1.0, None)",
            "row 't7': the check's reason must be a text, got None.",
        ),
        (
            "import numpy; return checks.Verdict(numpy.bool_(True), '')",
            "row 't7': the check's score must be in [0, 1], got",
        ),
        (
            "import numpy; return checks.Verdict(numpy.float32('nan'), '')",
            "row 't7': the check's score must be in [0, 1], got",
        ),
        (
            "import numpy; return checks.Verdict(numpy.array([0.5, 1.0]), '')",
            "row 't7': the check's score must be in [0, 1], got",
        ),
    ],
    ids=[
        "raises",
        "nan",
        "exits",
        "hangs in C",
        "loops",
        "sys.exit",
        "KeyboardInterrupt",
        "GeneratorExit",
        "other BaseException",
        "surrogate raised",
        "surrogate as reason",
        "no reason",
        "numpy truth",
        "numpy nan",
        "numpy array",
    ],
)
def test_a_row_that_a_check_fails_on_is_named_without_a_score(
    tmp_path: Path, evil: str, said: str
) -> None:
    read = prepare(
        tmp_path, [trace(i, i + 0.5) for i in range(12)], f'if "number 7." in document: {evil}'
    )
    graded = grade_file.grade(read, tmp_path / "graded.jsonl", Quiet(), grace=0.3)
    assert (graded.failed, np.isnan(graded.table["score"]).sum()) == (1, 1)
    assert said in graded.first
    rows = rows_of(tmp_path / "graded.jsonl")
    assert [row["id"] for row in rows if "error" in row["grade"]] == ["t7"]
    assert [row["grade"].get("score") for row in rows].count(1.0) == 11
    with pytest.raises(
        GateFailed, match=r"1 row could not be graded and will not be kept\. The first: row 't7'"
    ):
        graded.gate()


@pytest.mark.parametrize(
    "score",
    [
        "numpy.float64(0.5)",
        "numpy.float32(0.5)",
        "numpy.float16(0.5)",
        "numpy.mean([0.0, 1.0])",
        "numpy.array(0.5)",
        "fractions.Fraction(1, 2)",
        "checks.own(lambda document, value: numpy.float32(0.5))(document, answer, context).score",
    ],
)
def test_a_score_of_another_library_counts_as_pythons(tmp_path: Path, score: str) -> None:
    evil = f"import fractions, numpy; return checks.Verdict({score}, numpy.str_('fair'))"
    read = prepare(tmp_path, [trace(i, 1.5) for i in range(3)], evil)
    graded = grade_file.grade(read, tmp_path / "graded.jsonl", Quiet())
    assert graded.failed == 0
    verdicts = [row["grade"]["checks"]["plausible"] for row in rows_of(tmp_path / "graded.jsonl")]
    assert verdicts == [{"score": 0.5, "reason": "fair"}] * 3


@pytest.mark.parametrize("whole", ["numpy.int64(1)", "numpy.uint8(1)", "1"])
def test_a_whole_score_counts_as_a_float(tmp_path: Path, whole: str) -> None:
    read = prepare(tmp_path, [trace(0, 1.5)], f"import numpy; return checks.Verdict({whole}, '')")
    grade_file.grade(read, tmp_path / "graded.jsonl", Quiet())
    assert b'"plausible":{"score":1.0,' in (tmp_path / "graded.jsonl").read_bytes()


def test_a_numpy_truth_is_a_judgement_of_an_own_check(tmp_path: Path) -> None:
    check = "checks.own(lambda document, value: numpy.bool_(True))(document, answer, context)"
    read = prepare(tmp_path, [trace(0, 1.5)], f"import numpy; return {check}")
    assert grade_file.grade(read, tmp_path / "graded.jsonl", Quiet()).failed == 0


def test_many_such_rows_stop_grading_at_once_and_again(tmp_path: Path) -> None:
    read = prepare(tmp_path, [trace(i, 1.5) for i in range(3000)], 'raise ValueError("always")')
    for _ in range(2):
        with pytest.raises(
            GateFailed, match=r"more than 100 rows could not be graded\. The first: row 't0'"
        ):
            grade_file.grade(read, tmp_path / "graded.jsonl", Quiet())
        assert not (tmp_path / "graded.jsonl").exists()


def test_a_task_file_that_ends_the_process_is_not_retried(tmp_path: Path) -> None:
    read = prepare(tmp_path, [trace(1, 1.5)])
    (tmp_path / "task.py").write_text("import os; os._exit(3)")
    with pytest.raises(RunError, match="a grading process ended the process"):
        grade_file.grade(read, tmp_path / "graded.jsonl", Quiet())


BAD = [
    (b'{"id": "x", "messages": []}', "line 41, field 'messages': the last message is not"),
    (b"{", "line 41: not JSON"),
    (b'{"id": " ", "document": "a", "recorded_label": {}}', "line 41, field 'id': the id is empty"),
    (
        b'{"id": "x", "document": "a", "recorded_label": {"total": 1}, "gold": {}}',
        "line 41, document 'x'",
    ),
    (b'{"id": "x", "document": 5}', "line 41, field 'document'"),
]


@pytest.mark.parametrize(("line", "said"), BAD)
def test_an_invalid_row_is_named_by_its_line(tmp_path: Path, line: bytes, said: str) -> None:
    read = prepare(tmp_path, [trace(i, 1.5) for i in range(40)])
    data = read.traces.read_bytes().replace(b"\n", b"\n\n", 1)[:-1] + b"\n"
    read.traces.write_bytes(data.replace(b"\n\n", b"\n") + line + b"\n")
    grader = worker.Grader(read.settings, CallNote())
    start = data.replace(b"\n\n", b"\n").index(b'{"id":"t30"')
    with pytest.raises(DataError) as error:
        grader.grade(worker.GradingJob(start, read.traces.stat().st_size))
    assert said in str(error.value)


def test_an_id_that_is_used_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    read = prepare(tmp_path, [trace(i % 5, 1.5) for i in range(7)])
    with pytest.raises(
        DataError, match=r"line 6, field 'id': id 't0' was already used in line 1\."
    ):
        grade_file.grade(read, tmp_path / "graded.jsonl", Quiet())


class Stopped(Exception):
    """Raised to stop the work halfway."""


class Stopping(Quiet):
    """Progress that stops the work after twenty rows."""

    @contextmanager
    def progress(self, title: str, total: int | None = None) -> Iterator[Advance]:
        def advance(done: int, note: str = "") -> None:
            if done >= 20:
                raise Stopped

        yield advance


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a complete graded file and an unfinished one."""
    folder = tmp_path_factory.mktemp("unfinished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grade_file, "JOB", 2000)
        patch.setattr(staged, "SECONDS_BETWEEN_JOURNALS", 0.0)
        read = prepare(folder, [trace(i, i + 0.5) for i in range(60)])
        grade_file.grade(read, folder / "whole.jsonl", Quiet())
        with pytest.raises(Stopped):
            grade_file.grade(read, folder / "graded.jsonl", Stopping())
    return folder


@pytest.mark.parametrize(
    "damage", ["none", "table ahead", "table cut", "table changed", "journal cut", "other task"]
)
def test_an_unfinished_file_is_resumed_only_if_undamaged(
    unfinished: Path, tmp_path: Path, damage: str
) -> None:
    folder = shutil.copytree(unfinished, tmp_path / "copy")
    out, side = folder / "graded.jsonl", folder / "graded.jsonl.part.table"
    assert side.stat().st_size
    match damage:
        case "table ahead":  # as after a kill between table and journal
            side.write_bytes(side.read_bytes() + b"x" * 100_000)
        case "table cut":
            side.write_bytes(side.read_bytes()[:-1000])
        case "table changed":
            side.write_bytes(b"x" + side.read_bytes()[1:])
        case "journal cut":
            journal = folder / "graded.jsonl.part.json"
            journal.write_bytes(journal.read_bytes()[:-3])
        case "other task":
            (folder / "task.py").write_text((folder / "task.py").read_text() + "\n# other\n")
    read, quiet = (
        inputs.read(
            folder / "task.py", folder / "traces.jsonl", cap_by=None, gold=None, against=()
        ),
        Quiet(),
    )
    grade_file.grade(read, out, quiet)
    assert bool(quiet.said) is (damage in ("none", "table ahead"))
    assert (out.read_bytes() == (folder / "whole.jsonl").read_bytes()) is (damage != "other task")
    assert len(rows_of(out)) == 60
    assert not side.exists()


@given(st.lists(st.integers(0, 11)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_joined_in_the_order_asked_for(tmp_path: Path, some: list[int]) -> None:
    lines = [b"x" * i + b"\n" for i in range(12)]
    (tmp_path / "rows").write_bytes(b"".join(lines))
    found = np.zeros(12, table.kind(1))
    found["length"] = [len(line) for line in lines]
    task = load_task(prepare(tmp_path, [trace(1, 1.5)]).settings.task_file)
    with Lines(tmp_path / "rows", found, task) as read:
        assert (
            read.joined(some) == b"".join(lines[i] for i in some) == b"".join(map(read.line, some))
        )


def test_memory_and_file_keep_and_report_the_same(tmp_path: Path) -> None:
    rows = [
        trace(i, i + 0.5 if i % 4 else 3000.0, gold={"total": i + 0.5}, group=f"g{i % 6}")
        for i in range(80)
    ]
    rows[9]["messages"][0] = rows[5]["messages"][0]
    rows[11]["messages"][1]["content"] = "no object"
    evaluation = rows[20]["messages"][0]["content"]
    (tmp_path / "val.jsonl").write_bytes(orjson.dumps({"id": "v", "document": evaluation}))
    rule = Keep(threshold=0.5, best=9, cap=5, cap_by="group")
    read = prepare(tmp_path, rows, cap_by="group", against=(tmp_path / "val.jsonl",))
    graded = grade_file.grade(read, tmp_path / "graded.jsonl", Quiet())
    with Lines(tmp_path / "graded.jsonl", graded.table, read.task) as lines:
        sieve = kept_file.sieve(graded, lines, read, 3)
        pairs = kept_file.near_evaluation(graded, lines, read)
    checks, known = tuple(read.task.checks), from_gold(graded.table)
    told = report(
        graded.table,
        sieve,
        checks,
        rule,
        known,
        want_precision=0.9,
        pairs=pairs,
        evaluation=1,
        fields=("total",),
    )

    task = load_task(tmp_path / "task.py")
    pairs_in_memory = [(row, task.grade_trace(row)) for row in traces.read(read.traces)]
    chosen = select.choose(
        pairs_in_memory, task, rule, 3, evaluation=[("v", evaluation)], want_precision=0.9
    )
    assert chosen.report == told
    assert chosen.kept == tuple(np.flatnonzero(sieve.kept(rule)[0]).tolist())
    assert told.dropped["near an evaluation document"] == told.dropped["near-duplicate"] == 1
    assert [pair.row for pair in told.near_evaluation] == ["t20"]
    assert told.exact_duplicates == 1
    assert told.ceiling is not None
    assert json.loads(orjson.dumps(told.as_dict()))["kept"] == len(chosen.kept)


@pytest.mark.parametrize(
    "rule",
    [
        Keep(threshold=0.5, best=2, cap=5, cap_by="group"),
        Keep(top=0.2),
        Keep(near_duplicates=False),
    ],
)
def test_eligible_rows_are_what_the_rule_keeps_at_any_grade(tmp_path: Path, rule: Keep) -> None:
    rows = [trace(i, i + 0.5 if i % 4 else 3000.0, group=f"g{i % 6}") for i in range(60)]
    rows[9]["messages"][0] = rows[5]["messages"][0]  # of other groups: a copy either way
    rows[12]["messages"][0] = rows[6]["messages"][
        0
    ]  # of one group: none among the best of the group
    rows[11]["messages"][1]["content"] = "no object"
    task = load_task(prepare(tmp_path, rows).settings.task_file)
    graded = [(row, task.grade_trace(row)) for row in traces.read(tmp_path / "traces.jsonl")]
    evaluation = [("v", rows[20]["messages"][0]["content"])]
    chosen = select.choose(graded, task, rule, 3, evaluation=evaluation)
    anything = replace(rule, threshold=0.0, best=None, top=None)
    again = select.choose(graded, task, anything, 3, evaluation=evaluation)
    assert chosen.eligible == again.kept == again.eligible
    assert 0 < len(chosen.kept) < len(chosen.eligible) < 60
    assert not {11, 20} & set(chosen.eligible)


def test_gold_from_another_file_is_found_by_id_and_by_document(tmp_path: Path) -> None:
    rows = [trace(i, i + 0.5) for i in range(4)]
    gold = [
        {"id": "t1", "document": "?", "gold": {"total": 1.5}},
        {"id": "other", "document": rows[2]["messages"][0]["content"], "gold": {"total": 99}},
        {"id": "without", "document": "?"},
    ]
    (tmp_path / "gold.jsonl").write_bytes(b"\n".join(map(orjson.dumps, gold)))
    read = prepare(tmp_path, rows, gold=tmp_path / "gold.jsonl")
    done = worker.Grader(read.settings, CallNote()).grade(
        worker.GradingJob(0, read.traces.stat().st_size)
    )
    found: table.Table = np.frombuffer(done.table, table.kind(2))
    assert found["right"].tolist() == [-1, 1, 0, -1]


def test_a_typo_in_recorded_label_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path, [{"id": "d", "document": "Sum: 1.50", "recorded_labels": {"total": 1.5}}])
    monkeypatch.chdir(tmp_path)
    assert (
        cli.run(["grade", f"--task={tmp_path}/task.py", f"--traces={tmp_path}/traces.jsonl"]) == 1
    )
    err = capsys.readouterr().err
    assert "traces.jsonl, line 1, field 'recorded_labels'" in err
    assert "Did you mean 'recorded_label'?" in err
    assert not list(tmp_path.glob("graded*"))


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--cap", "3"], 2, "cap and cap_by go together"),
        (["--cap", "3", "--cap-by", "totel"], 2, "Did you mean 'total'?"),
        (["--out", "traces.jsonl"], 2, "also reads that file"),
        (["--kept", "graded.jsonl"], 2, "the same file"),
        (["--review", "3"], 2, "this is not a terminal"),
        (["--traces", "nowhere.jsonl"], 1, "cannot read it"),
        (["--gold", "traces.jsonl"], 1, "document"),
    ],
)
def test_invalid_options_are_refused_before_anything_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    said: str,
) -> None:
    prepare(tmp_path, [trace(1, 1.5)])
    monkeypatch.chdir(tmp_path)
    command = ["grade", "--task", "task.py", "--traces", "traces.jsonl", "--out", "graded.jsonl"]
    assert cli.run([*command, *options]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "graded.jsonl").exists()


def test_rows_without_a_group_are_refused_or_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [trace(i, 3000.0 if i % 3 else 1.5) for i in range(9)]
    prepare(tmp_path, rows)
    monkeypatch.chdir(tmp_path)
    command = ["grade", "--task", "task.py", "--traces", "traces.jsonl", "--out", "graded.jsonl"]
    for options in (["--best", "1"], ["--cap", "1", "--cap-by", "group"]):
        assert cli.run([*command, *options]) == 1
        err = capsys.readouterr().err
        assert "no row has a group" in err
        assert "traces.jsonl, field 'group'" in err
        assert not (tmp_path / "graded.jsonl").exists()
    prepare(tmp_path, [row | {"group": "g"} if i < 5 else row for i, row in enumerate(rows)])
    assert cli.run([*command, "--best", "1"]) == 0
    said = "4 of 9 rows have no group, and best = 1 drops none of them"
    assert f"{said}, whatever their grade: add a threshold." in capsys.readouterr().err
    assert cli.run([*command, "--best", "1", "--threshold", "1"]) == 0
    assert f"{said}.\n" in capsys.readouterr().err
    assert cli.run([*command, "--best", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["without_group"], told["kept"]) == (4, 5)


def test_a_rule_that_keeps_nothing_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path, [trace(1, 5000.0)])
    monkeypatch.chdir(tmp_path)
    assert (
        cli.run(
            [
                "grade",
                "--task",
                "task.py",
                "--traces",
                "traces.jsonl",
                "--kept",
                "kept.jsonl",
                "--json",
            ]
        )
        == 1
    )
    assert "no row is kept" in capsys.readouterr().err
    assert not (tmp_path / "kept.jsonl").exists()


UNREAD = """
import offapi
from offapi.checks import in_source, is_json

task = offapi.Task(
    name="days",
    instructions="Read.",
    schema={"type": "object", "properties": {"day": {"type": "string"}, "who": {"type": "string"}}},
    checks={"json": (is_json, 1.0), "source": (in_source, 1.0)},
    match={"who": "text", "day": "date"},
)
"""


@pytest.mark.parametrize(("found", "named"), [(0, True), (1, True), (2, False)])
def test_a_field_that_is_hardly_ever_found_is_named(
    tmp_path: Path, found: int, named: bool
) -> None:
    """Dates of a calendar that is not read, but for `found` of 10 rows."""
    rows = []
    for i in range(10):
        day = "2026-03-04" if i < found else "15 Ramadan 1447"
        answer = orjson.dumps({"who": f"Ann{i}", "day": "2026-03-04"}).decode()
        content = f"Seen by Ann{i} on {day}, number {i * 7919}."
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        rows.append({"id": f"t{i}", "messages": messages})
    read = prepare(tmp_path, rows)
    (tmp_path / "task.py").write_text(UNREAD)
    read = inputs.read(
        tmp_path / "task.py", tmp_path / "traces.jsonl", cap_by=None, gold=None, against=()
    )
    graded = grade_file.grade(read, tmp_path / "graded.jsonl", Quiet())
    with Lines(tmp_path / "graded.jsonl", graded.table, read.task) as lines:
        sieve = kept_file.sieve(graded, lines, read, 0)
    told = report(
        graded.table,
        sieve,
        tuple(read.task.checks),
        Keep(threshold=1.0),
        None,
        want_precision=0.9,
        fields=tuple(read.task.match),
    )
    assert told.not_found == {"who": 0, "day": 10 - found}
    sentence = f"The value of 'day' is not found in the document in {10 - found} of 10 rows."
    assert any(line.startswith(sentence) for line in told.lines()) is named
    assert not any("'who'" in line for line in told.lines())
    if not found:
        assert sentence in told.nothing_kept("labels", "Lower it.").what
