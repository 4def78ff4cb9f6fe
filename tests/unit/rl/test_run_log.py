"""The files of a GRPO run: what each decision writes before it stops the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
import tiny_llama

import offapi
from offapi import adapter
from offapi.backend import Completion
from offapi.checks import is_json
from offapi.data.documents import Document
from offapi.episodes import Episode, Floats
from offapi.errors import GateFailed
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.models.adapter_probe import PROBE
from offapi.optimizer import TrainState
from offapi.rl.gates import Problem
from offapi.rl.heldout import HeldOut
from offapi.rl.monitor import Decision, Figures, Trail, find_learned
from offapi.rl.reward_hacking import Gamed
from offapi.rl.reward_pool import Judged
from offapi.rl.rollouts import Prompt, Rollout, RolloutGroup, Sampled
from offapi.rl.run_log import RunLog
from offapi.stats.interval import Interval
from offapi.training.run import Run

PROMPTS = tuple(Prompt(Document(f"d{i}", f"text {i}", {"a": "x"}), (1,)) for i in range(2))
TASK = offapi.Task(
    name="t",
    instructions="Answer.",
    schema={"type": "object", "properties": {"a": {"type": "string"}}},
    checks={"json": (is_json, 1.0)},
    match={"a": "text"},
)
NAME = adapter.parameter("model.layers.0.mlp.up_proj", "A")
PROBLEM = Problem("signal", "nothing to learn.", "Do something.")


class Weights:
    """A backend whose adapter is one number."""

    name, device = "torch", "cpu"

    def __init__(self) -> None:
        self.value = 0.0
        self.restored: list[TrainState] = []

    def state(self) -> TrainState:
        up = adapter.parameter("model.layers.0.mlp.up_proj", "B")
        arrays = {NAME: np.full((1, 2), self.value, np.float32), up: np.zeros((2, 1), np.float32)}
        return TrainState(arrays, arrays, arrays, 7)

    def restore(self, state: TrainState) -> None:
        self.restored.append(state)

    def score(self, episodes: Sequence[Episode]) -> list[Floats]:
        return [np.zeros(len(episode.tokens) - 1, np.float32) for episode in episodes]


def look(step: int, *rewards: float, audit: float | None = 0.5) -> HeldOut:
    texts = tuple(f'{{"a": "{"x" if reward > 0.5 else "y"}"}}' for reward in rewards)
    return HeldOut(step, rewards, (audit,) * len(rewards), texts)


def figures(seen: HeldOut | None = None, recorded: bool = False) -> Figures:
    completion = Completion((1,), (-0.5,), "stop")
    rollouts = [Rollout(completion, str(r), Judged(r, {}, {}), r) for r in (0.0, 1.0)]
    groups = (RolloutGroup(PROMPTS[0], tuple(rollouts)),)
    return Figures(Sampled(groups, recorded=recorded), {"reward": 0.5}, seen)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    """A run that is held for writing, in which nothing is allowed to fail."""
    said: list[str] = []
    config = SimpleNamespace(
        val=tmp_path / "val.jsonl",
        allow=(),
        shape=LoraSpec(1, 2.0, ("up_proj",)),
        spec=lambda model: ModelSpec(model.path),
    )
    config.val.write_text("{}")
    model = SimpleNamespace(name="m", path=tiny_llama.write(tmp_path / "model"))
    inputs = SimpleNamespace(task=TASK, model=model, heldout=PROMPTS)
    progress = SimpleNamespace(say=said.append, said=said)
    folder = Run.create(tmp_path, "run", {})
    job = SimpleNamespace(config=config, inputs=inputs, folder=folder, progress=progress)
    with folder.lock():
        yield RunLog(job, Weights())  # type: ignore[arg-type]


def said(log: RunLog) -> str:
    return "\n".join(log.job.progress.said)  # type: ignore[attr-defined]


def read(log: RunLog, name: str) -> Any:
    return [orjson.loads(line) for line in (log.job.folder.path / name).read_bytes().splitlines()]


def best(log: RunLog) -> float:
    return float(adapter.read(log.job.folder.path / "best")[1][NAME][0, 0])


def begun(log: RunLog, audit: float | None = 0.5) -> Trail:
    seen = look(0, 0.25, 0.75, audit=audit)
    decision = Decision(Trail(history=(seen,)), seen, best=True)
    log.write_start(decision)
    return decision.trail


def test_the_first_look_is_written_with_its_adapter_and_counted(log: RunLog) -> None:
    begun(log)
    rows = read(log, "heldout-000000.jsonl")
    assert [(row["id"], row["reward"], row["audit"]) for row in rows] == [
        ("d0", 0.25, 0.5),
        ("d1", 0.75, 0.5),
    ]
    assert best(log) == 0.0
    assert read(log, "metrics.jsonl") == [{"step": 0, "heldout/reward": 0.5, "heldout/audit": 0.5}]
    assert [entry["n"] for entry in log.job.folder.manifest["scored"]] == [2]
    assert "Nothing audits this run" not in said(log)


def test_a_run_that_nothing_audits_says_so(log: RunLog) -> None:
    begun(log, audit=None)
    assert said(log).count("Nothing audits this run") == 1


def test_a_start_that_cannot_mean_anything_is_not_logged(log: RunLog) -> None:
    seen = look(0, 0.25, 0.75)
    with pytest.raises(GateFailed, match="nothing to learn"):
        log.write_start(Decision(Trail(history=(seen,)), seen, best=True, broken=(PROBLEM,)))
    assert not (log.job.folder.path / "metrics.jsonl").exists()


def test_a_step_writes_its_rollouts_its_look_and_its_checkpoint(log: RunLog) -> None:
    trail, backend = begun(log), log.backend
    backend.value = 3.0  # type: ignore[attr-defined]
    seen = look(1, 0.75, 0.75)
    trail = replace(trail, step=1, history=(*trail.history, seen))
    log.write_step(Decision(trail, seen, checkpoint=True), figures(seen), {"seconds/x": 1.0})
    assert [row["grade"]["score"] for row in read(log, "rollouts/000001.jsonl")] == [0.0, 1.0]
    assert [row["reward"] for row in read(log, "heldout-000001.jsonl")] == [0.75, 0.75]
    assert read(log, "metrics.jsonl")[1] == {
        "step": 1,
        "reward": 0.5,
        "heldout/reward": 0.75,
        "heldout/audit": 0.5,
    }
    assert read(log, "timings.jsonl") == [{"step": 1, "seconds/x": 1.0}]
    assert best(log) == 0.0  # this look is not the best
    assert [entry["n"] for entry in log.job.folder.manifest["scored"]] == [2, 2]
    backend.value = 5.0  # type: ignore[attr-defined]
    log.job.folder.write_folder("best", {"gone": b""})
    assert log.restore(9) == trail
    assert best(log) == 0.0
    (state,) = backend.restored  # type: ignore[attr-defined]
    assert (state.adapter[NAME][0, 0], state.step) == (3.0, 7)
    assert "Resumed at step 1 of 9" in said(log)


def test_without_a_checkpoint_there_is_nothing_to_restore(log: RunLog) -> None:
    assert log.restore(9) is None


def test_recorded_rollouts_are_not_written_again(log: RunLog) -> None:
    trail = replace(begun(log), step=1)
    log.write_step(Decision(trail), figures(recorded=True), {})
    assert not (log.job.folder.path / "rollouts").exists()
    assert not (log.job.folder.path / "checkpoints" / "step-000001").exists()


@pytest.mark.parametrize(("when", "logged"), [("broken", 1), ("problems", 2)])
def test_a_failed_gate_stops_the_run_before_or_after_the_step_is_logged(
    log: RunLog, when: str, logged: int
) -> None:
    trail = replace(begun(log), step=1)
    found: dict[str, Any] = {when: (PROBLEM,)}
    decision = Decision(trail, checkpoint=True, **found)
    with pytest.raises(GateFailed, match="nothing to learn"):
        log.write_step(decision, figures(), {})
    assert len(read(log, "metrics.jsonl")) == logged
    assert (log.job.folder.latest() is not None) == (when == "problems")
    assert f"The best adapter so far is in {log.job.folder.path / 'best'}." in said(log)


def test_a_gamed_reward_stops_the_run_with_the_samples_that_show_it(log: RunLog) -> None:
    before, after = look(0, 0.25, 0.25, audit=0.9), look(5, 0.75, 0.75, audit=0.1)
    found = Gamed(before, Interval(0.5, 0.5, 0.5), Interval(-0.8, -0.8, -0.8))
    decision = Decision(Trail(5, history=(before, after)), after, gamed=found)
    with pytest.raises(GateFailed, match="the reward is being gamed"):
        log.raise_alarm(decision)
    (record,) = read(log, "hacking.json")
    assert (record["step"], record["since"], record["rose"]) == (5, 0, True)
    assert [sample["id"] for sample in record["samples"]] == ["d0", "d1"]
    assert "reward 0.25 -> 0.75, audit 0.90 -> 0.10" in said(log)
    log.raise_alarm(replace(decision, gamed=None))


def test_the_best_adapter_is_the_result_whatever_the_gate_says(log: RunLog) -> None:
    trail = begun(log)
    log.backend.value = 3.0  # type: ignore[attr-defined]
    with pytest.raises(GateFailed, match="no significant improvement"):
        log.write_end(find_learned([*trail.history, look(5, 0.25, 0.75)]))
    kept = adapter.read(log.job.folder.path / "adapter")[1]
    assert kept[NAME][0, 0] == 0.0
    assert (log.job.folder.path / "adapter" / PROBE).is_file()
    probed = log.backend.restored[-1].adapter  # type: ignore[attr-defined]
    assert probed[NAME][0, 0] == 0.0, "the record is of the best adapter, not of the last"
    assert [row["id"] for row in read(log, "predictions.jsonl")] == ["d0", "d1"]
    (report,) = read(log, "report.json")
    assert report["n"] == 2
    assert read(log, "learned.json")[0]["learned"] is False
