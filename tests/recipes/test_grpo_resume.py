"""A GRPO run that is killed, out of disk or damaged resumes and ends with the same bytes."""

from __future__ import annotations

import errno
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import disk_faults
import grpo_signal
import numpy as np
import orjson
import pytest
import recipe_folder
from grpo_signal import Fault, Runner, contents

from offapi.adapter import read_base
from offapi.files import atomic
from offapi.model_spec import LoraSpec
from offapi.rl.monitor import Trail
from offapi.training import train_state
from offapi.training.checkpoints import Checkpoint
from offapi.training.run import Run

KILLED = -9
LAST, BEFORE = "step-000005", "step-000004"
SOAK = bool(os.environ.get("OFFAPI_SOAK"))
KILLS = 25 if SOAK else 6  # at random moments, of each backend's longer run


@dataclass(frozen=True)
class Ground:
    """A recipe, a process that runs it, and the files of an uninterrupted run."""

    recipe: Path
    runner: Runner
    kept: Path  # the uninterrupted run's folder
    straight: Mapping[str, bytes]  # and its files
    seconds: float  # and its time

    @property
    def run(self) -> Path:
        return self.recipe.parent / "runs" / "grpo"

    def train(self, *words: str, fault: Fault | None = None) -> Any:
        """Start the run, or resume it."""
        resume = ["--resume"] if self.run.exists() else []
        return self.runner.train(self.recipe, *words, *resume, fault=fault)

    def again(self) -> None:
        """Put the uninterrupted run's folder in place."""
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.kept, self.run)

    def ends_the_same(self, *words: str) -> bool:
        """Finish the run; return whether every byte is that of the uninterrupted run."""
        done = self.train(*words)
        assert done.returncode == 0, done.stderr
        return not self.differing()

    def differing(self) -> set[str]:
        """Return the files that differ from the uninterrupted run's."""
        found = contents(self.run)
        return {
            name
            for name in {**found, **self.straight}
            if found.get(name) != self.straight.get(name)
        }

    def survives(self, chain: Sequence[Fault], *words: str) -> None:
        """Kill and resume the run with each of `chain`; it must end as the uninterrupted run."""
        shutil.rmtree(self.run, ignore_errors=True)
        for fault in chain:
            done = self.train(*words, fault=fault)
            assert done.returncode == KILLED, f"{fault}: {done.returncode} {done.stderr}"
        assert self.ends_the_same(*words), self.differing()


def prepared(folder: Path, runner: Runner, **keys: Any) -> Ground:
    recipe = grpo_signal.lay_out(folder, **keys)
    started = time.monotonic()
    done = runner.train(recipe)
    assert done.returncode == 0, done.stderr
    seconds = time.monotonic() - started
    run, kept = folder / "runs" / "grpo", folder / "kept"
    run.rename(kept)
    return Ground(recipe, runner, kept, contents(kept), seconds)


@pytest.fixture(scope="module")
def runners() -> Iterator[Callable[[str], Runner]]:
    made: dict[str, Runner] = {}

    def runner(backend_name: str) -> Runner:
        if backend_name not in made:
            made[backend_name] = Runner(backend_name)
        return made[backend_name]

    yield runner
    for each in made.values():
        each.close()


@pytest.fixture(scope="module")
def grounds(
    tmp_path_factory: pytest.TempPathFactory, runners: Callable[[str], Runner]
) -> Callable[[str], Ground]:
    return cache(lambda name: prepared(tmp_path_factory.mktemp(name), runners(name), epochs=1.0))


@pytest.fixture
def ground(grounds: Callable[[str], Ground], backend_name: str) -> Ground:
    return grounds(backend_name)


def test_the_runs_compared_have_everything_in_them(ground: Ground) -> None:
    """Five steps of two updates, replaced groups, a rise, and a best look before the last."""
    log = recipe_folder.metrics(ground.kept)
    assert [line["step"] for line in log] == [0, 1, 2, 3, 4, 5]
    assert all(line["resampled_prompts"] > 0 and line["grad_norm"] > 0 for line in log[1:])
    assert log[-1]["heldout/reward"] > log[0]["heldout/reward"]
    assert orjson.loads(ground.straight["learned.json"])["best_step"] == 4
    assert sorted(path.name for path in (ground.kept / "checkpoints").glob("step-*")) == [
        BEFORE,
        LAST,
    ]


def test_killed_after_every_step(ground: Ground) -> None:
    ground.survives([Fault("write_step", 1)] * 5, "--set", "checkpoint_every=1")


def test_killed_within_steps(ground: Ground) -> None:
    """During looks, resampling, inner updates, a gradient, and around a checkpoint."""
    chain = [
        Fault("groups", 2),  # scored twice at the start
        Fault("groups", 4),  # flat groups drawn again
        Fault("optim_step", 1),  # between the first step's two updates
        Fault("policy_gradient", 4),  # a gradient that is never applied
        Fault("checkpoint", 1),  # step 2 is committed
        Fault("write_step", 1),  # a step beyond the checkpoint
        Fault("optim_step", 3),
        Fault("write", 1, operation=3),  # in the writing of step 3's rollouts
        Fault(
            "write_folder", 2, operation=4
        ),  # in that of step 4's best adapter: the first is the checkpoint's
        Fault("write_folder", 2),  # it is written, the checkpoint is not
        Fault("checkpoint", 2, operation=9),  # in the last checkpoint's write
    ]
    ground.survives(chain)


def last_checkpoint(ground: Ground, name: str = LAST) -> tuple[dict[str, bytes], Mapping[str, Any]]:
    folder = ground.kept / "checkpoints" / name
    files = {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != atomic.MANIFEST
    }
    return files, atomic.verify(folder)["meta"]


def operations_of_a_checkpoint(ground: Ground) -> int:
    ground.again()
    shutil.rmtree(ground.run / "checkpoints" / LAST)
    return disk_faults.count(lambda: commit(ground.run, *last_checkpoint(ground)))


def commit(path: Path, files: Mapping[str, bytes], meta: Mapping[str, Any]) -> None:
    run = Run.open(path)
    with run.lock():
        run.checkpoint(5, files, meta)


def test_killed_within_a_checkpoint_a_whole_one_is_left(ground: Ground, tmp_path: Path) -> None:
    files, meta = last_checkpoint(ground)
    total = operations_of_a_checkpoint(ground)
    found = []
    for n in range(1, total + 1):
        ground.again()
        shutil.rmtree(ground.run / "checkpoints" / LAST)
        assert disk_faults.kill_at(n, lambda: commit(ground.run, files, meta))
        latest = Run.open(ground.run).latest()
        assert latest is not None
        whole = {path.name: path.read_bytes() for path in latest.path.iterdir()}
        assert all(
            whole[name] == data
            for name, data in last_checkpoint(ground, latest.path.name)[0].items()
        )
        assert Trail.of(latest.meta).step == train_state.read(latest.path).step // 2 == latest.step
        found.append(latest.step)
    assert found == sorted(found)
    assert set(found) == {4, 5}


def test_a_full_disk_is_one_error_and_no_loss(ground: Ground) -> None:
    shutil.rmtree(ground.run, ignore_errors=True)
    for n in (9, 19, 26):
        done = ground.train(fault=Fault("full", n))
        assert done.returncode == 1, done.stderr
        assert done.stderr.count("error:") == 1, done.stderr
        assert "no space left" in done.stderr.lower(), done.stderr
        print(done.stderr[done.stderr.index("error:") :])
        assert not list(ground.run.rglob(".tmp-*"))
        assert not [
            name
            for name in contents(ground.run)
            if name.endswith(".jsonl") and not whole(ground.run / name)
        ]
        if (ground.run / "best").exists():
            atomic.verify(ground.run / "best")
    assert ground.ends_the_same(), ground.differing()


def whole(path: Path) -> bool:
    return all(line.endswith(b"}\n") for line in path.read_bytes().splitlines(keepends=True))


def test_a_flipped_bit_falls_back_to_the_checkpoint_before(ground: Ground) -> None:
    ground.again()
    shutil.rmtree(ground.run / "adapter")
    shutil.rmtree(ground.run / "best")
    flip(ground.run / "checkpoints" / LAST / train_state.OPTIMIZER)
    done = ground.train()
    assert done.returncode == 0, done.stderr
    assert f"{LAST} is damaged" in done.stderr
    assert "Resumed at step 4" in done.stderr
    assert not ground.differing()
    for name in (BEFORE, LAST):
        flip(ground.run / "checkpoints" / name / "adapter_model.safetensors")
    refused = ground.train()
    assert refused.returncode == 1
    assert "no checkpoint is intact" in refused.stderr


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def test_dropping_any_item_of_the_state_is_noticed(ground: Ground) -> None:
    """Negative controls: without it the comparison above fails. With everything it does not."""
    for item in ("nothing", "exp_avg", "optimizer step", "streaks", "history"):
        ground.again()
        shutil.rmtree(ground.run / "checkpoints" / LAST)
        forget(ground, item)
        assert ground.ends_the_same() == (item == "nothing"), item


def forget(ground: Ground, item: str) -> None:
    """Write the checkpoint of step 4 anew, without `item`."""
    folder = ground.run / "checkpoints" / BEFORE
    checkpoint = Run.open(ground.run).latest()
    assert checkpoint is not None
    state, trail = train_state.read(folder), Trail.of(checkpoint.meta)
    if item == "optimizer step":
        state = replace(state, step=1)
    elif item == "streaks":
        trail = Trail(trail.step, history=trail.history)
    elif item == "history":
        trail = replace(trail, history=trail.history[:-1])
    elif item != "nothing":
        state = replace(
            state, exp_avg={name: np.zeros_like(a) for name, a in state.exp_avg.items()}
        )
    files = {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != atomic.MANIFEST
    }
    files |= train_state.encode(state, LoraSpec(4, 8.0), read_base(folder))
    shutil.rmtree(folder)
    with Run.open(ground.run).lock():
        rewritten(ground, checkpoint, files, asdict(trail))


def rewritten(
    ground: Ground, checkpoint: Checkpoint, files: Mapping[str, bytes], meta: Mapping[str, Any]
) -> None:
    facts = {"step": checkpoint.step, "metrics_bytes": checkpoint.metrics_bytes, "meta": meta}
    atomic.write_folder(checkpoint.path, files, facts)


def test_resuming_with_other_inputs_is_refused(ground: Ground) -> None:
    for name, field in (
        ("task.py", "sha256.task"),
        ("train.jsonl", "sha256.data"),
        ("val.jsonl", "sha256.val"),
    ):
        ground.again()
        path = ground.recipe.with_name(name)
        before = path.read_bytes()
        path.write_bytes(
            before
            + (b"\n" if name == "task.py" else b'{"id": "more", "document": "from Oak, no 30"}\n')
        )
        refused = ground.train()
        path.write_bytes(before)
        assert refused.returncode == 1, refused.stderr
        assert f"{field} was" in refused.stderr
        assert not ground.differing()
    refused = ground.train("--set", "num_iterations=1")
    assert refused.returncode == 1
    assert "config.num_iterations was 2" in refused.stderr
    assert ground.ends_the_same("--allow", "cut", "--allow", "learned", "--allow", "hacking"), (
        ground.differing()
    )


def test_an_alarm_survives_a_kill_and_a_resume(
    tmp_path: Path, backend_name: str, runners: Callable[[str], Runner]
) -> None:
    recipe = grpo_signal.lay_out(tmp_path, epochs=1.0)
    recipe.with_name("task.py").write_text(grpo_signal.GAMED)
    runner = runners(backend_name)
    killed = runner.train(recipe, fault=Fault("checkpoint", 2))  # of step 4, ahead of its alarm
    assert killed.returncode == KILLED, killed.stderr
    for _ in range(2):
        stopped = runner.train(recipe, "--resume")
        assert stopped.returncode == 3, stopped.stderr
        assert "the reward is being gamed" in stopped.stderr
    run = tmp_path / "runs" / "grpo"
    assert (run / "hacking.json").exists()
    assert not (run / "heldout-000005.jsonl").exists()
    assert not (run / "adapter").exists()
    allowed = ["--allow", "cut", "--allow", "learned", "--allow", "hacking"]
    assert runner.train(recipe, "--resume", *allowed).returncode == 0


def test_killed_at_random_moments_again_and_again(
    tmp_path: Path, backend_name: str, runners: Callable[[str], Runner]
) -> None:
    long = {
        "epochs": 8.0 if SOAK else 4.0,
        "lr": 1e-3,
        "allow": ["cut", "learned", "signal", "hacking"],
    }
    ground = prepared(tmp_path, runners(backend_name), **long)
    assert (
        sum(line.get("grad_norm", 0.0) > 0 for line in recipe_folder.metrics(ground.kept))
        > 0.3 * 5 * long["epochs"]
    )
    draw = random.Random(backend_name)
    share, kills = ground.seconds / KILLS, 0
    while kills < KILLS:
        working = int(kills % 3 > 0)  # every third one may meet it while it starts
        done = ground.train(fault=Fault("clock", working, seconds=draw.uniform(0.0, 2 * share)))
        kills += done.returncode == KILLED
        print(kills, [line for line in done.stderr.splitlines() if line.startswith("Resumed")])
        if done.returncode != KILLED:  # it came to its end before
            assert done.returncode == 0, done.stderr
            assert not ground.differing()
            shutil.rmtree(ground.run)
    assert ground.ends_the_same(), ground.differing()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_full_disk_leaves_the_best_so_far(tmp_path: Path, n: int) -> None:
    run = Run.create(tmp_path, "a", {})
    with run.lock():
        run.write_folder("best", {"a": b"1", "b": b"2"})
        before = contents(run.path)
        with disk_faults.fail_at(n, "write", errno.ENOSPC), pytest.raises(atomic.NotCommitted):
            run.write_folder("best", {"a": b"3", "b": b"4"})
        assert contents(run.path) == before
