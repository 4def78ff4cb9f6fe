"""Task: prompts with a shared prefix, answers to learn, grades, errors with file and line."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import offapi
from offapi.checks import Answer, Context, Verdict, fits_schema, in_source, is_json, matches_gold
from offapi.demo.task import task as demo
from offapi.errors import ConfigError, DataError
from offapi.task import Example, Task, load_task

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string"},
        "total": {"type": "number"},
        "count": {"type": "integer"},
    },
    "required": ["vendor", "total"],
}
TASK = Task(
    name="t",
    instructions="Read.",
    schema=SCHEMA,
    checks={"json": (is_json, 1.0), "source": (in_source, 3.0)},
    match={"vendor": "text", "total": "number", "count": "number"},
    examples=(
        Example("one", {"total": 1.5, "vendor": "A"}),
        Example("two", {"vendor": "B", "total": 2}),
    ),
)


def test_messages_share_everything_before_the_document() -> None:
    first, second = TASK.messages("doc 1", shots=2), TASK.messages("doc 2", shots=2)
    assert first[:-1] == second[:-1]
    assert [message["role"] for message in first] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert [first[-1]["content"], second[-1]["content"]] == ["doc 1", "doc 2"]
    assert first[2]["content"] == '{"vendor":"A","total":1.50}'
    assert TASK.messages("d") == [
        {"role": "system", "content": "Read."},
        {"role": "user", "content": "d"},
    ]
    assert TASK.messages("d", shots=1) == [*first[:3], {"role": "user", "content": "d"}]


@pytest.mark.parametrize("shots", [3, -1])
def test_more_shots_than_examples_are_refused(shots: int) -> None:
    with pytest.raises(ConfigError, match="from 0 to 2, the worked examples"):
        TASK.messages("d", shots=shots)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"total": 128.5, "vendor": "Café"}, '{"vendor":"Café","total":128.50}'),
        ({"vendor": 'A "B"', "total": 128}, '{"vendor":"A \\"B\\"","total":128.00}'),
        ({"vendor": "A", "total": 0.125}, '{"vendor":"A","total":0.125}'),
        ({"vendor": "A", "total": 1e22}, '{"vendor":"A","total":1e+22}'),
        ({"vendor": "A", "total": None}, '{"vendor":"A","total":null}'),
        ({"vendor": "A", "count": 3.0}, '{"vendor":"A","count":3}'),
        ({"z": 1, "a": [True], "vendor": "A"}, '{"vendor":"A","a":[true],"z":1}'),
        ({}, "{}"),
    ],
)
def test_answers_have_one_spelling_that_reads_back(answer: dict[str, Any], text: str) -> None:
    assert TASK.answer_text(answer) == text
    assert json.loads(text) == answer


def test_lists_are_spelled_like_fields() -> None:
    lines = {
        "type": "array",
        "items": {"type": "object", "properties": {"n": {"type": "integer"}, "p": {}}},
    }
    schema = {
        "type": "object",
        "properties": {"lines": lines, "tags": {"type": "array"}, "raw": {"type": "array"}},
    }
    task = replace(TASK, schema=schema, match={"lines": "list", "tags": "list"}, examples=())
    answer = {
        "tags": ["a", 2.5, None, [1]],
        "raw": [2.5],
        "lines": [{"p": 3, "n": 2.0}, {"z": True, "p": 1.125}],
    }
    text = task.answer_text(answer)
    assert text == (
        '{"lines":[{"n":2,"p":3.00},{"p":1.125,"z":true}],"tags":["a",2.50,null,[1.00]],"raw":[2.5]}'
    )
    assert json.loads(text) == answer


def test_a_grade_is_the_weighted_mean_with_reasons() -> None:
    grade = TASK.grade("B\nTotal 3.00", '{"vendor":"B","total":4}')
    assert grade.parts["json"].score == 1.0
    assert grade.parts["source"].score == 0.5
    assert grade.score == pytest.approx((1 * 1.0 + 3 * 0.5) / 4)
    assert grade.parts["source"].reason == "not in the document: total"
    assert grade.value == {"vendor": "B", "total": 4}
    broken = TASK.grade("B", "Sure! {}")
    assert (broken.score, broken.value) == (0.0, None)


def test_audit_checks_are_scored_and_do_not_count() -> None:
    grade = replace(TASK, audit=("json",)).grade("B\nTotal 3.00", '{"vendor":"B","total":4}')
    assert grade.score == 0.5
    assert {name: part.score for name, part in grade.parts.items()} == {"json": 1.0, "source": 0.5}


def test_gold_reaches_the_checks() -> None:
    task = replace(TASK, checks={"gold": (matches_gold, 1.0)})
    gold = {"vendor": "b", "total": 3.0, "count": None}
    assert task.grade("", '{"vendor":"B","total":3}', gold).score == 1.0
    with pytest.raises(ConfigError, match="no gold answer"):
        task.grade("", '{"vendor":"B","total":3}')


def _raises(document: str, answer: Answer, context: Context) -> Verdict:
    raise KeyError("vendor")


def _scores(score: Any) -> Any:
    return lambda document, answer, context: Verdict(score, "")


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (_raises, "KeyError: 'vendor'"),
        (_scores(float("nan")), "nan"),
        (_scores(1.5), "1.5"),
        (_scores(-0.1), "-0.1"),
        (_scores(True), "True"),
        (_scores("1"), "'1'"),
        (lambda document, answer, context: 1.0, "must return a Verdict"),
        (lambda document: Verdict(1.0, ""), "TypeError"),
    ],
)
def test_a_faulty_check_is_an_error_with_row_and_check(check: Any, said: str) -> None:
    task = replace(TASK, checks={"json": (is_json, 1.0), "mine": (check, 1.0)})
    with pytest.raises(ConfigError) as caught:
        task.grade("d", "{}", row="row 7")
    assert "'mine'" in caught.value.where
    assert "row 7" in caught.value.where
    assert said in caught.value.what


def _loops(document: str, answer: Answer, context: Context) -> Verdict:
    while True:
        pass


def _swallows(document: str, answer: Answer, context: Context) -> Verdict:
    while True:
        try:
            time.sleep(9)
        except Exception:
            continue


def _backtracks(document: str, answer: Answer, context: Context) -> Verdict:
    return Verdict(float(bool(re.fullmatch(r"(a+)+b", "a" * 60))), "")


@pytest.mark.parametrize("check", [_loops, _swallows, _backtracks])
def test_a_slow_check_is_an_error_with_row_and_check(check: Any) -> None:
    task = replace(TASK, checks={"json": (is_json, 1.0), "slow": (check, 1.0)}, check_seconds=0.05)
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"more than check_seconds = 0\.05") as caught:
        task.grade("d", "{}", row="row 7")
    assert time.monotonic() - began < 5
    assert "'slow'" in caught.value.where
    assert "row 7" in caught.value.where
    time.sleep(0.1)  # no alarm is left behind
    assert replace(task, checks={"json": (is_json, 1.0)}).grade("d", "{}").score == 1.0


def test_nested_tasks_set_the_alarm_once_and_reset_it() -> None:
    def rests(document: str, answer: Answer, context: Context) -> Verdict:
        time.sleep(0.1)
        return Verdict(0.5, "")

    inner = replace(TASK, checks={"rests": (rests, 1.0)}, check_seconds=0.05)

    def asks(document: str, answer: Answer, context: Context) -> Verdict:
        return Verdict(inner.grade("B", "{}").score, "")

    def asks_and_rests(document: str, answer: Answer, context: Context) -> Verdict:
        replace(inner, checks={"json": (is_json, 1.0)}).grade("B", "{}")
        return rests(document, answer, context)

    for check in (asks, asks_and_rests):
        outer = replace(TASK, checks={"outer": (check, 1.0)}, check_seconds=5.0)
        assert (
            outer.grade("d", "{}").score == 0.5
        )  # inside another's, the inner limit does not count
        with pytest.raises(
            ConfigError, match=r"^task 't', check 'outer': the answer's checks took more"
        ):
            replace(outer, check_seconds=0.05).grade("d", "{}")
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert replace(inner, check_seconds=None).grade("d", "{}").score == 0.5


def test_there_is_no_time_limit_in_other_threads() -> None:
    def sleeps(document: str, answer: Answer, context: Context) -> Verdict:
        time.sleep(0.1)
        return Verdict(1.0, "")

    task = replace(TASK, checks={"slow": (sleeps, 1.0)}, check_seconds=0.02)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(task.grade, "d", "{}").result().score == 1.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"check_seconds": -1}, "check_seconds"),
        ({"check_seconds": "5"}, "check_seconds"),
        ({"check_seconds": float("nan")}, "check_seconds"),
        ({"name": " "}, "name"),
        ({"instructions": ""}, "instructions"),
        ({"schema": {"type": "object"}}, "no properties"),
        ({"schema": {**SCHEMA, "type": "objekt"}}, "not a valid JSON schema"),
        ({"schema": {**SCHEMA, "$ref": "https://example.com/a.json"}}, "not a valid JSON schema"),
        ({"match": {"vender": "text"}}, "'vender'"),
        ({"match": {"vendor": "txt"}}, "'txt'"),
        ({"match": {}}, "match must not be empty"),
        ({"checks": {}}, "checks must not be empty"),
        ({"checks": {"a": is_json}}, "checks['a']"),
        ({"checks": {"a": (is_json, 0)}}, "weight of checks['a'] must be a number above 0, got 0"),
        ({"checks": {"a": (is_json, float("nan"))}}, "got nan"),
        ({"audit": ("jsn",)}, "audit names 'jsn'"),
        ({"audit": (["json"],)}, "audit names ['json']"),
        ({"audit": "json"}, "audit must be a tuple of names of checks, got 'json'"),
        ({"audit": ("source", "json")}, "every check is in audit"),
        ({"reward": 1.0}, "reward must be a function, got 1.0"),
        ({"max_answer_tokens": 0}, "max_answer_tokens"),
        ({"examples": [Example("d", {"vendor": "A", "total": 1})]}, "tuple"),
        ({"examples": (Example("d", {"vendor": "A"}),)}, "examples[0]"),
        ({"examples": (Example(" ", {"vendor": "A", "total": 1}),)}, "empty document"),
        ({"examples": (Example("d", [1]),)}, "examples[0]"),  # type: ignore[arg-type]
    ],
)
def test_a_task_that_contradicts_itself_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(TASK, **change)
    assert said in caught.value.what
    assert caught.value.next_step


def test_an_unknown_audit_check_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'source'"):
        replace(TASK, audit=("sources",))


def test_gold_is_checked_before_it_is_used() -> None:
    TASK.check_gold({"vendor": "A", "total": None, "count": 3}, row="1")
    for gold in (
        {"vendor": "A", "count": 1},
        {"vendor": "A", "total": "1", "count": 1},
        {"vendor": 1, "total": 1},
    ):
        with pytest.raises(DataError) as caught:
            TASK.check_gold(gold, row="row 9")
        assert "row 9" in caught.value.where
    with pytest.raises(DataError, match="YYYY-MM-DD"):
        demo.check_gold({"vendor": "A", "date": "02/04/2026", "total": 1}, row="1")


GOOD = """\
import offapi
from offapi.checks import is_json

task = offapi.Task(
    name="mine",
    instructions="Read.",
    schema={"type": "object", "properties": {"a": {"type": "string"}}},
    checks={"json": (is_json, 1.0)},
    match={"a": "text"},
)
"""


def test_a_task_file_is_loaded_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "my task.py"
    path.write_text(GOOD)
    assert load_task(path).name == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["my task.py"]


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("x = 1\ntask = (\n", 2, "SyntaxError"),
        ("x = 1\n\ny = x / 0\n", 3, "ZeroDivisionError"),
        ("import not_there\n", 1, "ModuleNotFoundError"),
        ("def f():\n    return {}['k']\n\nf()\n", 2, "KeyError"),
        (GOOD.replace('"text"', '"txt"'), 4, "'txt'"),
        (GOOD.replace("name=", "nmae="), 4, "nmae"),
        ("raise SystemExit(0)\n", 1, "SystemExit"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
        ("x = 1\n", None, "no `task`"),
        ("task = 3\n", None, "int"),
    ],
)
def test_a_bug_in_a_task_file_names_file_and_line(
    tmp_path: Path, source: str, line: int | None, said: str
) -> None:
    path = tmp_path / "task.py"
    path.write_text(source)
    with pytest.raises(ConfigError) as caught:
        load_task(path)
    assert caught.value.where == (f"{path}, line {line}" if line else str(path))
    assert said in caught.value.what
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("argument", "said", "step"),
    [
        (
            "max_answer_token=9",
            "offapi.Task has no argument 'max_answer_token'.",
            "Did you mean 'max_answer_tokens'?",
        ),
        (
            "zzz=9",
            "offapi.Task has no argument 'zzz'.",
            "Known: audit, bind, check_seconds, checks",
        ),
        (
            "examples=(offapi.Example('d', {}, anser={}),)",
            "offapi.Example has no argument 'anser'.",
            "Did you mean 'answer'?",
        ),
    ],
)
def test_an_unknown_argument_of_a_task_suggests_the_nearest(
    tmp_path: Path, argument: str, said: str, step: str
) -> None:
    path = tmp_path / "task.py"
    path.write_text(GOOD.replace("Task(", f"Task(\n    {argument},"))
    with pytest.raises(ConfigError) as caught:
        load_task(path)
    assert caught.value.what == said
    assert caught.value.next_step.startswith(step)
    assert ", line " in caught.value.where


def test_importing_the_judge_from_the_checks_says_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "task.py"
    path.write_text(GOOD.replace("import is_json", "import is_json, judge"))
    with pytest.raises(ConfigError, match="`judge` is not in") as caught:
        load_task(path)
    assert caught.value.where == f"{path}, line 2"
    assert "from offapi.teachers.judge import judge" in caught.value.next_step
    path.write_text(GOOD.replace("(is_json,", "(offapi.judge('r', 'http://127.0.0.1:9/v1'),"))
    assert type(load_task(path).checks["json"][0]).__name__ == "Judge"


def test_a_task_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_task(tmp_path / "none.py")
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_task(tmp_path / "latin.py")


def test_the_demo_tasks_examples_pass_its_own_checks() -> None:
    path = Path(sys.modules[Task.__module__].__file__ or "").parents[1] / "demo" / "task.py"
    task = load_task(path)
    assert task == demo
    assert len(task.examples) == 4
    for example in task.examples:
        assert task.grade(example.document, task.answer_text(example.answer)).score == 1.0
        task.check_gold(example.answer, row="example")
    assert fits_schema in [check for check, _ in task.checks.values()]


def test_importing_offapi_does_not_load_what_tasks_need() -> None:
    heavy = ("numpy", "jsonschema_rs", "rapidfuzz", "offapi.task")
    code = f"import sys, offapi; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert offapi.Task is Task
    assert offapi.Example is Example
