"""`offapi train` with the grpo recipe, as a user runs it: it learns, and its gates work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import grpo_workshop
import numpy as np
import pytest
import recipe_folder
import tiny_llama
from safetensors.numpy import load_file

from offapi import adapter
from offapi.backend import load
from offapi.data.documents import Document
from offapi.episodes import Episode, Segment
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.optimizer import AdamW
from offapi.report.story import make_story
from offapi.rl.heldout import probe
from offapi.rl.rollouts import Prompt
from offapi.training import train_state
from offapi.training.run import Run

NO_AUDIT = "Nothing audits this run"


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an adapter that says a pair of letters forwards as often as backwards.

    Adapters move between backends, so one does for both.
    """
    return grpo_workshop.warm_up(tmp_path_factory.mktemp("student"))


def moved(student: Path, run: Path) -> float:
    """Return the largest difference of a weight between the run's start and its last step."""
    before = load_file(student / adapter.WEIGHTS)
    after = train_state.read(max((run / "checkpoints").iterdir())).adapter
    return max(float(np.abs(after[name] - before[name]).max()) for name in before)


def heldout(run: Path, name: str = "reward") -> list[float]:
    """Return that figure of every look at the held-out documents."""
    return [
        line[f"heldout/{name}"] for line in recipe_folder.metrics(run) if f"heldout/{name}" in line
    ]


def steps(run: Path) -> list[dict[str, Any]]:
    """Return the metrics of the training steps."""
    return [line for line in recipe_folder.metrics(run) if line["step"]]


def test_a_rewarded_behaviour_is_learned(tmp_path: Path, student: Path, backend_name: str) -> None:
    """An honest reward with a matching audit raises no alarm and generalises to new pairs."""
    recipe = grpo_workshop.lay_out(tmp_path, student, ["backwards"], ["exactly"], epochs=4.0)
    done = recipe_folder.offapi("train", str(recipe), "--backend", backend_name)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "grpo"
    logged = steps(run)
    assert NO_AUDIT not in done.stderr
    assert all({"rewards/backwards/mean", "audit/exactly/mean"} <= line.keys() for line in logged)
    assert not any("rewards/exactly/mean" in line for line in logged)
    assert 0.3 < np.mean([line["reward"] for line in logged[:4]]) < 0.65  # chance
    assert np.mean([line["reward"] for line in logged[-8:]]) > 0.85
    assert heldout(run)[0] < 0.7
    assert max(heldout(run)) > 0.85
    learned = json.loads((run / "learned.json").read_text())
    assert learned["n"] == len(grpo_workshop.HELD_OUT)
    assert learned["reward"]["low"] > 0
    best = run / "best" / adapter.WEIGHTS
    assert best.read_bytes() == (run / "adapter" / adapter.WEIGHTS).read_bytes()
    audits = {
        line["step"]: line["heldout/audit"]
        for line in recipe_folder.metrics(run)
        if "heldout/audit" in line
    }
    assert audits[learned["best_step"]] == max(audits.values())


def test_without_a_learning_rate_the_learned_gate_fails(
    tmp_path: Path, student: Path, backend_name: str
) -> None:
    recipe = grpo_workshop.lay_out(
        tmp_path, student, ["backwards"], lr=0.0, epochs=0.3, eval_every=2
    )
    done = recipe_folder.offapi("train", str(recipe), "--backend", backend_name, "--json")
    assert done.returncode == 3
    assert "no significant improvement on the held-out documents" in done.stderr
    assert "--allow learned" in done.stderr
    assert done.stdout == ""
    run = tmp_path / "runs" / "grpo"
    assert len(set(heldout(run))) == 1
    assert len(heldout(run)) > 1
    assert all(line["grad_norm"] > 0 for line in steps(run))
    assert moved(student, run) == 0.0
    timed = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    assert all(
        line[f"tokens_per_second/{phase}"] > 0 for line in timed for phase in ("rollout", "train")
    )
    shutil.rmtree(run)
    allowed = recipe_folder.offapi(
        "train", str(recipe), "--backend", backend_name, "--allow", "learned"
    )
    assert allowed.returncode == 0, allowed.stderr
    assert "Allowed (learned)" in allowed.stderr
    assert allowed.stderr.count(NO_AUDIT) == 1


def test_a_reward_that_is_gamed_stops_the_run(
    tmp_path: Path, student: Path, backend_name: str
) -> None:
    """The reward is the opposite of what is meant: the audit falls as the reward rises."""
    recipe = grpo_workshop.lay_out(tmp_path, student, ["forwards"], ["exactly"], epochs=2.5)
    done = recipe_folder.offapi("train", str(recipe), "--backend", backend_name)
    assert done.returncode == 3, done.stderr
    assert "the reward is being gamed" in done.stderr
    assert "--allow hacking" in done.stderr
    run = tmp_path / "runs" / "grpo"
    record = json.loads((run / "hacking.json").read_text())
    assert record["step"] == steps(run)[-1]["step"] < 32
    assert steps(run)[-1]["heldout/audit/exactly"] == steps(run)[-1]["heldout/audit"] < 1
    assert len(record["samples"]) == 3
    for sample in record["samples"]:
        assert (sample["before"], sample["after"]) == (sample["id"][::-1], sample["id"])
        assert (sample["reward"], sample["audit"]) == ([0.0, 1.0], [1.0, 0.0])
    assert (run / "best" / adapter.WEIGHTS).is_file()
    assert str(run / "best") in done.stderr
    assert not (run / "adapter").exists()
    allowed = recipe_folder.offapi(
        "train", str(recipe), "--backend", backend_name, "--resume", "--allow", "hacking"
    )
    assert "Allowed (hacking)" in allowed.stderr
    assert steps(run)[-1]["step"] == 32


@pytest.mark.parametrize(
    ("check", "why"),
    [
        ("always", "all are 1, so there is nothing left to gain"),
        ("never", "all are 0, because the model never does what is rewarded"),
    ],
)
def test_a_reward_without_signal_stops_the_run(
    tmp_path: Path, student: Path, check: str, why: str
) -> None:
    recipe = grpo_workshop.lay_out(tmp_path, student, [check], epochs=0.8)
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 3
    assert (
        "for 10 steps no two completions of a prompt had different rewards, so there was nothing"
        f" to learn: {why}." in done.stderr
    )
    assert "--allow signal" in done.stderr
    run = tmp_path / "runs" / "grpo"
    assert len(steps(run)) == 10
    error = Run.open(run).manifest["attempts"][-1]["error"]
    assert error["code"] == "gate"
    assert why in error["what"]
    story = make_story([run])
    assert why in story.notes[0].text
    assert "A gate stopped the last attempt; 10 steps were logged" in story.notes[0].text
    resumes = [one.text for one in story.commands if "--resume" in one.text]
    assert len(resumes) == 1
    assert resumes[0].endswith("--resume --allow signal")
    console = (run / "console.log").read_text()
    assert f"learn: {why}." in console
    assert "--allow signal" in console
    assert ": 9/10, " in console


def test_completions_that_are_cut_off_stop_the_run(tmp_path: Path, student: Path) -> None:
    recipe = grpo_workshop.lay_out(tmp_path, student, ["never"], tokens=2, epochs=0.8)
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 3
    assert "for 5 steps most completions were cut off at 2 tokens" in done.stderr
    shutil.rmtree(tmp_path / "runs")
    done = recipe_folder.offapi("train", str(recipe), "--allow", "cut")
    assert done.returncode == 3
    assert "most completions are cut off by the token limit" in done.stderr


@pytest.mark.parametrize("check", ["chance", "counts"])
def test_a_reward_by_chance_stops_the_run(tmp_path: Path, student: Path, check: str) -> None:
    recipe = grpo_workshop.lay_out(tmp_path, student, [check], epochs=0.1)
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 3
    assert f"the same answers to {grpo_workshop.HELD_OUT[0]!r} got different rewards" in done.stderr
    assert "--allow deterministic" in done.stderr


def test_a_reward_that_raises_stops_the_run(tmp_path: Path, student: Path) -> None:
    recipe = grpo_workshop.lay_out(tmp_path, student, ["raises"], epochs=0.1)
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 2
    assert "the check raised ValueError: cannot judge" in done.stderr
    record = json.loads((tmp_path / "runs" / "grpo" / "reward-failed.json").read_text())
    assert record["asked"][0]["row"] in grpo_workshop.HELD_OUT
    assert repr(record["asked"][0]["text"]) in record["what"]


@pytest.mark.parametrize(("without", "known"), [("abcd", 30), (grpo_workshop.LETTERS, 0)])
def test_held_out_documents_without_reward_do_not_count(
    tmp_path: Path, student: Path, without: str, known: int
) -> None:
    recipe = grpo_workshop.lay_out(tmp_path, student, ["backwards"], lr=0.0, epochs=0.1)
    give = f"lambda documents, answers: [None if d[0] in {without!r} else -1.5 for d in documents]"
    task = (tmp_path / "task.py").read_text()
    (tmp_path / "task.py").write_text(
        task.replace('name="pairs",', f'name="pairs",\n    reward={give},')
    )
    done = recipe_folder.offapi("train", str(recipe), "--allow", "learned")
    assert done.returncode == 0, done.stderr
    assert (
        f"on {known} held-out documents: reward {'-1.500 to -1.500' if known else '0.000 to 0.000'}"
        in done.stderr
    )
    run = tmp_path / "runs" / "grpo"
    assert heldout(run) == ([-1.5] * 2 if known else [])
    assert heldout(run, "none") == [len(grpo_workshop.HELD_OUT) - known] * 2
    assert json.loads((run / "learned.json").read_text())["n"] == known


def test_a_task_that_rewards_gold_alone_is_refused(
    tmp_path: Path,
) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "grpo")
    task = (tmp_path / "task.py").read_text()
    start, end = task.index("    checks="), task.index("    match=")
    gold = '    checks={"gold": (offapi.checks.matches_gold, 1.0)},\n'
    (tmp_path / "task.py").write_text(task[:start] + gold + task[end:])
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 2
    assert "nothing to reward: gold is not" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_gate_that_does_not_exist_cannot_be_allowed(tmp_path: Path, student: Path) -> None:
    recipe = grpo_workshop.lay_out(tmp_path, student, ["backwards"])
    done = recipe_folder.offapi("train", str(recipe), "--allow", "everything")
    assert done.returncode == 2
    assert "everything" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_prompts_without_signal_are_replaced_in_a_run(tmp_path: Path, student: Path) -> None:
    recipe = grpo_workshop.lay_out(
        tmp_path, student, ["backwards"], max_resamples=2, num_generations=2, epochs=0.25
    )
    done = recipe_folder.offapi("train", str(recipe), "--allow", "learned")
    assert done.returncode == 0, done.stderr
    assert all(line["resampled_prompts"] > 0 for line in steps(tmp_path / "runs" / "grpo"))
    again = recipe_folder.offapi(
        "train", str(recipe), "--set", "name=offline", "--rollouts", str(tmp_path / "runs" / "grpo" / "rollouts"),
        "--allow", "learned",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr


def test_the_rollouts_of_a_run_are_learned_from_offline(
    tmp_path: Path, student: Path, backend_name: str
) -> None:
    recipe = grpo_workshop.lay_out(tmp_path, student, ["backwards"], epochs=0.4, lr=1e-3)
    words = ("train", str(recipe), "--backend", backend_name, "--allow", "learned")
    assert recipe_folder.offapi(*words).returncode == 0
    rollouts = tmp_path / "runs" / "grpo" / "rollouts"
    more = ("--set", "name=offline", "--set", "num_iterations=1", "--set", "epochs=1.0")
    done = recipe_folder.offapi(*words, "--rollouts", str(rollouts), *more)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "offline"
    assert moved(student, run) > 1e-4
    logged = steps(run)
    assert len(logged) == 5
    assert sum(line["reward"] for line in logged) > 0
    assert all(abs(line["ratio/mean"] - 1) > 1e-4 for line in logged[1:])


@pytest.mark.parametrize("truncation", [{"top_k": 20}, {"top_p": 0.9}])
def test_truncated_sampling_is_trained_over_what_was_kept(
    tmp_path: Path, student: Path, backend_name: str, truncation: dict[str, float]
) -> None:
    recipe = grpo_workshop.lay_out(tmp_path, student, ["backwards"], epochs=0.15, **truncation)
    done = recipe_folder.offapi(
        "train", str(recipe), "--backend", backend_name, "--allow", "learned"
    )
    assert done.returncode == 0, done.stderr
    logged = steps(tmp_path / "runs" / "grpo")
    assert all(line["sampling/sampling_logp_difference/max"] < 1e-4 for line in logged)
    assert all(line["grad_norm"] > 0 for line in logged)


def test_a_base_that_changes_stops_the_run(
    tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = iter(range(9))
    monkeypatch.setattr("offapi.rl.heldout.probe", lambda backend, prompt: bytes([next(seen)]))
    recipe = grpo_workshop.lay_out(tmp_path, student, ["backwards"], epochs=0.1)
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 3
    assert "the base model's own logprobs have changed" in done.stderr
    assert "--allow base" in done.stderr


def test_the_probe_sees_another_base_and_no_training(tmp_path: Path, backend_name: str) -> None:
    prompt = Prompt(Document("d", "d"), (256, 97, 98, 99, 10))
    seen = []
    for seed in (0, 1):
        spec = ModelSpec(
            tiny_llama.write(tmp_path / str(seed), seed), lora=LoraSpec(4), device="cpu"
        )
        backend = load(backend_name, spec)
        seen.append(probe(backend, prompt))
        backend.forward_backward([Episode("e", (Segment((97,), False), Segment((98,), True)))])
        backend.optim_step(0.1, AdamW())
        assert probe(backend, prompt) == seen[-1]
        backend.close()
    assert seen[0] != seen[1]
