"""Rewards in processes of their own: hanging, dying, raising and invalid ones, and the record."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from offapi.data.documents import Document
from offapi.errors import ConfigError, DataError, OffapiError, RunError
from offapi.evaluation.accuracy import make_prediction
from offapi.rl.prompts import require_gold
from offapi.rl.reward import BATCH as BATCH_INDEX
from offapi.rl.reward import Fault, Rewarder
from offapi.rl.reward_pool import Asked, Judged, Rewards, rewarded
from offapi.task import load_task
from offapi.workers.supervised import CallNote

TASK = """\
import asyncio, json, os, random, re, signal, subprocess, sys, time
import offapi
from offapi.checks import Verdict, is_json, matches_gold

{code}

task = offapi.Task(
    name="t",
    instructions="Read.",
    schema={{"type": "object", "properties": {{"a": {{"type": "string"}}, "b": {{"type": "number"}}}}}},
    match={{"a": "text", "b": "number"}},
    checks={checks},
    {more}
)
"""
BATCH = [Asked(f"r{i}", f"document {i}", json.dumps({"a": "x", "b": i})) for i in range(4)]


def task_file(
    folder: Path, code: str = "", checks: str = '{"json": (is_json, 1.0)}', more: str = ""
) -> Path:
    (folder / "task.py").write_text(TASK.format(code=code, checks=checks, more=more))
    return folder / "task.py"


def reward_file(folder: Path, body: str, head: str = "def") -> Path:
    """Write a task rewarded by a function `score` of `documents` and `answers`."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return task_file(folder, f"{head} score(documents, answers):\n{lines}", more="reward=score,")


def rewards(path: Path, workers: int = 1, seconds: float = 20.0) -> Rewards:
    return Rewards(path, workers, seconds, path.parent / "kept.json")


def judge(path: Path, asked: list[Asked] = BATCH, seconds: float = 20.0) -> list[Judged]:
    with rewards(path, seconds=seconds) as processes:
        return processes.submit(asked).result()


def workers_of(pid: int) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]


def until(done: Callable[[], bool], seconds: float = 8.0) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.02)
    return done()


def gone(pid: int) -> bool:
    """Return whether the process ended; an orphan may wait as a zombie."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    assert workers_of(os.getpid()) == []


def test_only_rewarded_checks_count_and_gold_is_for_the_audit(
    tmp_path: Path,
) -> None:
    code = """\
def blind(document, answer, context):
    return Verdict(0.5 if context.gold is None else 1.0, "")
def sees(document, answer, context):
    return Verdict(0.0 if context.gold is None else 1.0, "")
"""
    checks = (
        '{"json": (is_json, 1.0), "blind": (blind, 3.0), "sees": (sees, 9.0), "near":'
        " (matches_gold, 9.0)}"
    )
    path = task_file(tmp_path, code, checks, 'audit=("sees",),')
    asked = [Asked("r", "d", '{"a":"x","b":1}', {"a": "X", "b": 2}), Asked("r", "d", "no", None)]
    first, second = judge(path, asked)
    assert first == Judged(
        (1.0 + 3 * 0.5) / 4,
        {"json": 1.0, "blind": 0.5, "sees": 1.0, "near": 0.5},
        {"sees": 1.0, "near": 0.5, "gold": 0.5},
        {"gold.a": 1.0, "gold.b": 0.0},
    )
    assert second == Judged(3 * 0.5 / 4, {"json": 0.0, "blind": 0.5, "sees": 0.0}, {"sees": 0.0})
    assert rewarded(load_task(path)) == ("json", "blind")


def test_a_reward_function_gets_the_batch_and_checks_audit(tmp_path: Path) -> None:
    path = reward_file(
        tmp_path, "return [100.0 * len(documents) + json.loads(answer)['b'] for answer in answers]"
    )
    found = judge(path)
    assert [one.reward for one in found] == [400.0, 401.0, 402.0, 403.0]
    assert found[0] == Judged(400.0, {"json": 1.0}, {"json": 1.0})
    assert rewarded(load_task(path)) == ()
    assert judge(path, []) == []


def test_none_leaves_a_completion_without_a_reward(tmp_path: Path) -> None:
    path = reward_file(tmp_path, "return (None, 0, None, 2.5)")
    found = judge(path)
    assert [one.reward for one in found] == [None, 0.0, None, 2.5]
    assert found[0].audit == {"json": 1.0}


def test_arrays_of_numbers_are_lists_of_numbers(tmp_path: Path) -> None:
    found = judge(
        reward_file(tmp_path, "import numpy as np\nreturn np.arange(4, dtype=np.float32) / 2")
    )
    assert [one.reward for one in found] == [0.0, 0.5, 1.0, 1.5]
    assert all(type(one.reward) is float for one in found)


def test_coroutines_are_awaited_together_in_one_loop(tmp_path: Path) -> None:
    body = """\
loops.add(asyncio.get_running_loop())
await asyncio.gather(*(asyncio.sleep(0.3) for _ in answers))
return [len(loops)] * len(answers)"""
    path = reward_file(tmp_path, body, "loops = set()\nasync def")
    with rewards(path) as processes:
        processes.submit(BATCH).result()
        began = time.monotonic()
        assert [one.reward for one in processes.submit(BATCH).result()] == [1.0] * 4
        assert time.monotonic() - began < 4 * 0.3


def test_submit_returns_at_once_and_results_keep_their_order(tmp_path: Path) -> None:
    body = (
        "time.sleep(1.0 if 'document 0' in documents else 0)\nreturn [json.loads(answer)['b'] for"
        " answer in answers]"
    )
    with rewards(reward_file(tmp_path, body), workers=2) as processes:
        for warm in [processes.submit(BATCH[1:]) for _ in range(2)]:
            warm.result()
        began = time.monotonic()
        handles = [processes.submit([*BATCH[i:], *BATCH[:i]]) for i in range(4)]
        quick = processes.submit(BATCH[1:])
        assert time.monotonic() - began < 0.5
        assert not handles[0].done()
        values = [[one.reward for one in handle.result()] for handle in handles]
        assert time.monotonic() - began < 3.5  # four seconds of sleep, in two processes
        assert values == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]
        assert [one.reward for one in quick.result()] == [1, 2, 3]


RAISES = 'raise KeyError("total")'
FAULTS = [
    (RAISES, "raised KeyError: 'total'", None),
    ("return [1.0] * 3", "returned 3 rewards for 4 completions", None),
    ("return [1.0, 1.0, float('nan'), 1.0]", "gave nan, not a finite number or None", 2),
    ("os._exit(3)", "the call ended its process (exit code 3)", None),
    ("os.kill(os.getpid(), signal.SIGSEGV)", "the call ended its process (signal SIGSEGV)", None),
]


@pytest.mark.parametrize(("body", "said", "index"), FAULTS, ids=[body for body, _, _ in FAULTS])
def test_a_faulty_reward_stops_the_run_and_stores_its_input(
    tmp_path: Path, body: str, said: str, index: int | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        judge(reward_file(tmp_path, body))
    assert said in caught.value.what
    assert "reward 'score'" in caught.value.where
    assert ("rows 'r0' to 'r3'" if index is None else f"row 'r{index}'") in caught.value.where
    assert str(tmp_path / "kept.json") in caught.value.next_step
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert [one["row"] for one in kept["asked"]] == [
        f"r{i}" for i in ([index] if index is not None else range(4))
    ]
    assert kept["asked"][0]["text"].startswith('{"a": "x", "b": ')
    assert said in kept["what"]
    assert (RAISES in kept["traceback"] and "task.py" in kept["traceback"]) == (body == RAISES)


@pytest.mark.parametrize(
    ("body", "said", "index"),
    [
        ("sys.exit(0)", "raised SystemExit: 0", BATCH_INDEX),
        ("return None", "returned None, not a list", BATCH_INDEX),
        ("return {0: 1, 1: 1, 2: 1, 3: 1}", "not a list of numbers", BATCH_INDEX),
        ("return {1, 2, 3, 4}", "not a list of numbers", BATCH_INDEX),
        ("return 'four'", "returned 'four', not a list", BATCH_INDEX),
        ("return b'four'", "returned b'four', not a list", BATCH_INDEX),
        ("return (1.0 for _ in answers)", "not a list of numbers", BATCH_INDEX),
        ("return [1.0, float('-inf'), 1.0, 1.0]", "gave -inf, not a finite number", 1),
        ("return [True, 1.0, 1.0, 1.0]", "gave True, not a finite number", 0),
        ("return [1.0, 1.0, 1.0, '1']", "gave '1', not a finite number", 3),
        ("return [1.0, [1.0], 1.0, 1.0]", "gave [1.0], not a finite number", 1),
        ("return [10 ** 400, 1.0, 1.0, 1.0]", "gave 1", 0),
    ],
)
def test_a_reward_must_be_a_list_of_finite_numbers(
    tmp_path: Path, body: str, said: str, index: int
) -> None:
    with asyncio.Runner() as loop:
        found = Rewarder(load_task(reward_file(tmp_path, body)), CallNote(), loop).judge(BATCH)
    assert isinstance(found, Fault)
    assert said in found.what
    assert found.index == index


AUDIT = 'audit=("odd",),'
CHECKS = [
    ('raise ValueError("odd")', "the check raised ValueError: odd.", ""),
    ("sys.exit(2)", "the check raised SystemExit: 2.", AUDIT),
    ('return Verdict(float("nan"), "")', "the check's score must be in [0, 1], got nan.", ""),
    ("return 1.0", "the check must return a Verdict, got 1.0.", AUDIT),
    ("os._exit(7)", "the call ended its process (exit code 7).", ""),
]


@pytest.mark.parametrize(("body", "said", "audit"), CHECKS)
def test_a_faulty_check_names_the_completion(
    tmp_path: Path, body: str, said: str, audit: str
) -> None:
    code = (
        f"def odd(document, answer, context):\n    if '2' in document: {body}\n    return"
        " Verdict(1.0, '')"
    )
    with pytest.raises(ConfigError) as caught:
        judge(task_file(tmp_path, code, '{"json": (is_json, 1.0), "odd": (odd, 1.0)}', audit))
    assert caught.value.what == said
    assert caught.value.where.endswith("check 'odd', row 'r2'")
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert [one["row"] for one in kept["asked"]] == ["r2"]
    assert ("check raised" in said) == ("in odd" in kept["traceback"])


HANGS = [
    "while True: pass",
    "time.sleep(60)",
    "re.match(r'(a+)+$', 'a' * 60 + 'b')",
]  # the last holds Python in C


@pytest.mark.parametrize("body", HANGS)
def test_a_reward_that_hangs_is_ended_with_all_it_started(tmp_path: Path, body: str) -> None:
    path = reward_file(tmp_path, f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{body}")
    with rewards(path, seconds=0.4) as processes:
        assert until(
            lambda: len(workers_of(os.getpid())) == 1
        )  # a forked process has our name until it has its own
        (worker,) = workers_of(os.getpid())
        began = time.monotonic()
        with pytest.raises(ConfigError, match=r"took more than 0\.4 s and was ended"):
            processes.submit(BATCH).result()
        assert time.monotonic() - began < 5  # the process starts in it
        assert not worker.is_running()
        with pytest.raises(
            ConfigError, match=r"took more than 0\.4 s"
        ):  # and nothing is judged any more
            processes.submit(BATCH).result()
    assert len(json.loads((tmp_path / "kept.json").read_text())["asked"]) == 4


def test_programs_a_hanging_reward_started_are_ended_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="took more than"):
        judge(
            reward_file(
                tmp_path,
                f"open({str(tmp_path / 'pid')!r},"
                " 'w').write(str(os.getpid()))\nsubprocess.run(['sleep', '60'])",
            ),
            seconds=0.5,
        )
    leader = int((tmp_path / "pid").read_text())
    assert until(
        lambda: all(gone(p.pid) or os.getpgid(p.pid) != leader for p in psutil.process_iter())
    )


@pytest.mark.parametrize("more", ["", "check_seconds=None,"])
def test_the_hanging_check_and_its_completion_are_named(tmp_path: Path, more: str) -> None:
    """In C code `check_seconds` has no effect; the limit per call still holds."""
    hang = HANGS[0] if more else HANGS[2]
    code = (
        f"def slow(document, answer, context):\n    if '3' in document:\n        {hang}\n    return"
        " Verdict(1.0, '')"
    )
    path = task_file(tmp_path, code, '{"slow": (slow, 1.0), "json": (is_json, 1.0)}', more)
    with pytest.raises(ConfigError, match=r"the call took more than 0\.4 s") as caught:
        judge(path, seconds=0.4)
    assert caught.value.where == f"{path}, check 'slow', row 'r3'"
    assert [one["row"] for one in json.loads((tmp_path / "kept.json").read_text())["asked"]] == [
        "r3"
    ]


def test_the_limit_is_of_a_call_not_of_a_batch(tmp_path: Path) -> None:
    code = "def slow(document, answer, context):\n    time.sleep(0.3)\n    return Verdict(1.0, '')"
    found = judge(task_file(tmp_path, code, '{"slow": (slow, 1.0)}'), seconds=0.8)
    assert [one.reward for one in found] == [1.0] * 4


def test_texts_with_lone_surrogates_are_stored(tmp_path: Path) -> None:
    asked = [Asked("r", "é \udcff", "\udc80")]
    with pytest.raises(ConfigError):
        judge(reward_file(tmp_path, "raise ValueError(answers[0])"), asked)
    kept = json.loads((tmp_path / "kept.json").read_text("utf-8"))
    assert (kept["asked"][0]["document"], kept["asked"][0]["text"]) == ("é \udcff", "\udc80")


def test_a_fault_is_reported_when_nothing_can_be_stored(tmp_path: Path) -> None:
    path = reward_file(tmp_path, "return []")
    said = r"returned 0 rewards for 4 .* are not kept \(could not be written"
    with (
        Rewards(path, 1, 20.0, tmp_path / "none" / "kept.json") as processes,
        pytest.raises(ConfigError, match=said),
    ):
        processes.submit(BATCH).result()


def test_a_task_that_cannot_reward_or_compare_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to reward: gold is not"):
        judge(task_file(tmp_path, checks='{"gold": (matches_gold, 1.0)}'))
    with pytest.raises(ConfigError, match="line 5: NameError"):
        judge(task_file(tmp_path, "oops"))
    with pytest.raises(DataError, match="document 'r': gold field 'b' is missing"):
        judge(task_file(tmp_path), [Asked("r", "d", "{}", {"a": "x"})])
    assert not (tmp_path / "kept.json").exists()
    with pytest.raises(
        ConfigError,
        match=r"the task file, on loading or in the background, ended its process \(exit code 3\)",
    ):
        judge(task_file(tmp_path, "os._exit(3)"))


def test_a_process_that_ends_between_calls_blames_no_completion(
    tmp_path: Path,
) -> None:
    body = (
        "import threading\nthreading.Timer(0.2, os._exit, (4,)).start()\nreturn [1.0] *"
        " len(answers)"
    )
    path = reward_file(tmp_path, body)
    with rewards(path) as processes:
        processes.submit(BATCH).result()
        time.sleep(0.4)
        with pytest.raises(
            ConfigError, match=r"in the background, ended its process \(exit code 4\)"
        ) as caught:
            processes.submit(BATCH).result()
        assert caught.value.where == str(path)


def test_rewards_that_are_not_deterministic_are_found(tmp_path: Path) -> None:
    path = reward_file(
        tmp_path, "seen.append(1)\nreturn [1, None, None, len(seen)]", "seen = []\ndef"
    )
    with rewards(path) as processes:
        first = processes.submit(BATCH).result()
        assert processes.not_deterministic(BATCH, first) == ["r3"]
    with rewards(task_file(tmp_path)) as processes:
        assert processes.not_deterministic(BATCH, processes.submit(BATCH).result()) == []


def test_prints_go_to_stderr_and_no_numeric_library_loads(tmp_path: Path) -> None:
    body = """\
print("said by the reward")
os.write(1, b"said in C")
return [float(any(name in sys.modules for name in ("torch", "mlx", "transformers", "peft")))] * len(answers)"""
    path = reward_file(tmp_path, body)
    code = f"""
from pathlib import Path
from offapi.rl.reward_pool import Asked, Rewards
if __name__ == "__main__":
    with Rewards(Path({str(path)!r}), 2, 20.0, Path("kept")) as rewards:
        print(rewards.submit([Asked("r", "d", "x")]).result()[0].reward)
"""
    (tmp_path / "main.py").write_text(code)
    command, buffered = (
        [sys.executable, str(tmp_path / "main.py")],
        {**os.environ, "PYTHONUNBUFFERED": ""},
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=buffered)
    assert done.stdout == "0.0\n"
    assert "said by the reward" in done.stderr
    assert "said in C" in done.stderr
    assert "Traceback" not in done.stderr


def test_leaving_early_ends_the_processes_and_stores_nothing(tmp_path: Path) -> None:
    path = reward_file(tmp_path, "time.sleep(60)")
    with rewards(path, workers=2) as processes:
        handles = [processes.submit(BATCH) for _ in range(4)]
        began = time.monotonic()
    assert time.monotonic() - began < 5
    for handle in handles:
        with pytest.raises((RunError, CancelledError)):
            handle.result(timeout=5)
    assert not (tmp_path / "kept.json").exists()


def test_workers_ignore_interrupts(tmp_path: Path) -> None:
    with rewards(
        reward_file(tmp_path, "time.sleep(0.5)\nreturn [1.0] * len(answers)"), workers=2
    ) as processes:
        started = [processes.submit(BATCH) for _ in range(2)]
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGINT,
        ):  # while they start, and when they have
            for worker in workers_of(os.getpid()):
                worker.send_signal(number)
            time.sleep(0.3)
        for handle in [*started, processes.submit(BATCH)]:
            for worker in workers_of(os.getpid()):
                worker.send_signal(signal.SIGINT)
            assert [one.reward for one in handle.result()] == [1.0] * 4


@pytest.mark.parametrize("body", [HANGS[0], HANGS[2], "return [1.0] * len(answers)"])
def test_a_killed_trainer_leaves_no_worker(tmp_path: Path, body: str) -> None:
    if sys.platform != "linux" and "re.match" in body:
        pytest.skip("only Linux can end it")
    path = reward_file(tmp_path, f"open({str(tmp_path / 'called')!r}, 'w').close()\n{body}")
    code = f"""
import time
from pathlib import Path
from offapi.rl.reward_pool import Asked, Rewards
if __name__ == "__main__":
    with Rewards(Path({str(path)!r}), 2, 100.0, Path("kept")) as rewards:
        rewards.submit([Asked("r", "d", "x")])
        time.sleep(60)
"""
    (tmp_path / "main.py").write_text(code)
    trainer = subprocess.Popen([sys.executable, tmp_path / "main.py"])
    try:
        assert until((tmp_path / "called").exists)
        pids = [worker.pid for worker in workers_of(trainer.pid)]
        assert len(pids) == 2
    finally:
        trainer.kill()
        trainer.wait()
    assert until(lambda: all(map(gone, pids)), 3.0)


def test_errors_of_the_first_failure_are_those_of_all(tmp_path: Path) -> None:
    errors: list[OffapiError] = []
    with rewards(reward_file(tmp_path, "raise ValueError(documents[0])"), workers=2) as processes:
        handles: list[Any] = [processes.submit([one]) for one in BATCH]
        for handle in handles:
            with pytest.raises(ConfigError) as caught:
                handle.result()
            errors.append(caught.value)
    assert len({str(error) for error in errors}) == 1
    assert json.loads((tmp_path / "kept.json").read_text())["what"] == errors[0].what


@pytest.mark.parametrize(("strict", "fenced"), [(False, 1.0), (True, 0.0)])
def test_rewards_read_answers_as_evaluation_does(
    tmp_path: Path, strict: bool, fenced: float
) -> None:
    answer = '{"a": "x", "b": 1}'
    texts = [answer, f"```json\n{answer}\n```", f"It is x.</think>\n{answer}", f"Sure: {answer}"]
    asked = [Asked("r", "document", text, {"a": "x", "b": 1}) for text in texts]
    judged = judge(task_file(tmp_path, more=f"strict={strict},"), asked)
    assert [one.reward for one in judged] == [1.0, fenced, 1.0, 0.0]
    assert [one.audit["gold"] for one in judged] == [1.0, fenced, 1.0, 0.0]
    task = load_task(tmp_path / "task.py")
    for one, text in zip(judged, texts, strict=True):
        prediction = make_prediction(task, Document("r", "document", {"a": "x", "b": 1}), text)
        assert all(prediction.correct.values()) == (one.reward == 1.0)


def test_right_answers_are_rewarded_where_the_run_says_so(tmp_path: Path) -> None:
    checks = '{"json": (is_json, 1.0), "right": (all_right, 3.0), "near": (matches_gold, 1.0)}'
    path = task_file(tmp_path, "from offapi.checks import all_right", checks, 'audit=("near",),')
    gold = {"a": "x", "b": 1}
    asked = [Asked("r", "d", '{"a":"x","b":1}', gold), Asked("r", "d", '{"a":"x","b":2}', gold)]
    with Rewards(path, 1, 20.0, tmp_path / "kept.json", gold=True) as pool:
        judged = pool.submit(asked).result()
    assert [one.reward for one in judged] == [1.0, 0.25]
    assert [one.audit for one in judged] == [{"near": 1.0, "gold": 1.0}, {"near": 0.5, "gold": 0.5}]
    assert rewarded(load_task(path), gold=True) == ("json", "right")


def test_gold_that_nothing_compares_cannot_be_rewarded(tmp_path: Path) -> None:
    path = task_file(tmp_path, "", '{"json": (is_json, 1.0)}')
    with pytest.raises(ConfigError, match="no check that compares an answer with gold"):
        rewarded(load_task(path), gold=True)
    with pytest.raises(DataError, match="'b' has no gold"):
        require_gold([Document("a", "x", {"a": 1}), Document("b", "y")])
