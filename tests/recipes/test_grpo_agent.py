"""GRPO of an agent: episodes of several turns are learned, read back, and resumed to the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpo_agent_signal
import orjson
import pytest
import recipe_folder
from grpo_signal import Fault, Runner, contents

KILLED = -9


def test_a_run_killed_in_a_step_of_many_turns_ends_with_the_same_bytes(
    tmp_path: Path, backend_name: str
) -> None:
    runner = Runner(backend_name)
    recipe = grpo_agent_signal.lay_out(tmp_path)
    run = tmp_path / "runs" / "grpo"
    try:
        done = runner.train(recipe)
        assert done.returncode == 0, done.stderr
        straight = contents(run)
        shows_turns(run)
        shutil.rmtree(run)
        faults = [Fault("groups", 3), Fault("policy_gradient", 2), Fault("write_step", 1)]
        for fault in faults:
            resume = ["--resume"] if run.exists() else []
            killed = runner.train(recipe, *resume, fault=fault)
            assert killed.returncode == KILLED, f"{fault}: {killed.stderr}"
        slow = grpo_agent_signal.TASK.replace("SECONDS", "0.0")
        assert (tmp_path / "task.py").read_text() == slow
        done = runner.train(recipe, "--resume")
        assert done.returncode == 0, done.stderr
        found = contents(run)
        assert {name for name in straight if found.get(name) != straight[name]} == set()
    finally:
        runner.close()


def shows_turns(run: Path) -> None:
    """Check that the run's episodes have turns, errors and malformed calls, and were learned."""
    log = recipe_folder.metrics(run)[1:]
    for name in ("turns", "tool_calls", "tool_errors", "malformed_calls"):
        assert max(line[f"episodes/{name}"] for line in log) > (1.0 if name == "turns" else 0.0)
    assert all(line["grad_norm"] > 0 for line in log)
    assert all(line["sampling/sampling_logp_difference/max"] < 1e-3 for line in log)
    rows = (run / "rollouts" / "000001.jsonl").read_bytes().splitlines()
    first = orjson.loads(rows[0])
    assert [message["role"] for message in first["messages"][:2]] == ["system", "user"]
    assert first["tools"][0]["function"]["name"] == "look"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("constrain=schema",), "`constrain` bounds a single answer"),
        (("overlong=4",), "`overlong` is for single answers"),
        (("shard=true",), "sampled on one rank"),
        (("credit=turn", "loss.rule=gspo"), "gspo has one ratio for a whole episode"),
    ],
)
def test_keys_that_episodes_do_not_have_are_refused(
    tmp_path: Path, words: tuple[str, ...], what: str
) -> None:
    recipe = grpo_agent_signal.lay_out(tmp_path)
    given = [word for each in words for word in ("--set", each)]
    done = recipe_folder.offapi("train", str(recipe), *given)
    assert done.returncode == 2, done.stderr
    assert what in done.stderr
    assert not (tmp_path / "runs").exists()
