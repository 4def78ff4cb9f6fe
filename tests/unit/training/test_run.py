"""The run folder: identity, lock, metrics, and checkpoints that survive kills and damage."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import disk_faults
import pytest

from offapi.errors import RunError
from offapi.files import atomic
from offapi.training import checkpoints
from offapi.training.run import Run

MANIFEST = {
    "config": {"lr": 5e-4, "lora": {"rank": 8}},
    "model": {"sha256": "a" * 64},
    "data": {"sha256": "b" * 64},
}


def files(step: int) -> dict[str, bytes]:
    return {
        "adapter.safetensors": f"weights after {step}".encode() * 20,
        "optimizer.safetensors": bytes([step % 256]) * 50,
    }


def started(root: Path, *steps: int) -> Run:
    """Return a run with checkpoints at `steps` and one metrics line per step up to the last."""
    run = Run.create(root, "a", MANIFEST)
    with run.lock():
        for step in range(1, (steps[-1] if steps else 0) + 1):
            run.log(step, {"loss": 1 / step})
            if step in steps:
                run.checkpoint(step, files(step), {"seen": step})
    return run


def metric_steps(run: Run) -> list[int]:
    path = run.path / "metrics.jsonl"
    return (
        [json.loads(line)["step"] for line in path.read_text().splitlines()]
        if path.exists()
        else []
    )


def holds(run: Run, step: int) -> None:
    checkpoint = run.latest()
    assert checkpoint is not None
    assert checkpoint.step == step
    assert checkpoint.meta == {"seen": step}
    assert {name: (checkpoint.path / name).read_bytes() for name in files(step)} == files(step)


def test_layout_and_modes(tmp_path: Path) -> None:
    run = started(tmp_path, 10)
    names = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    step = "checkpoints/step-000010/"
    wanted = {
        f"{step}adapter.safetensors",
        f"{step}optimizer.safetensors",
        f"{step}manifest.json",
    }
    assert names == {".lock", "manifest.json", "metrics.jsonl", *wanted}
    assert {stat.S_IMODE(path.stat().st_mode) for path in run.path.rglob("*") if path.is_dir()} == {
        0o700
    }
    assert {
        stat.S_IMODE(path.stat().st_mode) for path in run.path.rglob("*") if path.is_file()
    } == {0o600}
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700


def test_manifest_records_attempts_versions_and_network(tmp_path: Path) -> None:
    run = started(tmp_path, 2)
    with pytest.raises(KeyboardInterrupt), run.lock():
        raise KeyboardInterrupt
    first, second = run.manifest["attempts"]
    assert first["outcome"] == "finished"
    assert second["outcome"] == "interrupted"
    assert first["versions"]["offapi"]
    assert first["host"]["cpus"] >= 1
    assert first["network"]["guard"] is True
    assert {key: run.manifest[key] for key in MANIFEST} == MANIFEST


def test_a_taken_name_is_refused_and_a_missing_run_named(tmp_path: Path) -> None:
    started(tmp_path)
    with pytest.raises(RunError, match="already"):
        Run.create(tmp_path, "a", MANIFEST)
    with pytest.raises(RunError, match="no run here"):
        Run.open(tmp_path / "b")
    with pytest.raises(RunError, match="plain name"):
        Run.create(tmp_path, "../b", MANIFEST)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_resume_continues_from_the_last_checkpoint(tmp_path: Path) -> None:
    run = started(tmp_path, 2, 4)
    with run.lock():
        for step in (5, 6):
            run.log(step, {"loss": 0.1})
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 7, "lo')  # torn by a kill
    run = Run.open(run.path)
    with run.lock():
        checkpoint = run.resume(MANIFEST)
        assert checkpoint is not None
        assert checkpoint.step == 4
        assert metric_steps(run) == [1, 2, 3, 4]
        run.log(5, {"loss": 0.2})
        run.checkpoint(5, files(5), {"seen": 5})
    assert metric_steps(run) == [1, 2, 3, 4, 5]
    assert run.manifest["attempts"][-1]["step"] == 4


def test_the_file_latest_of_older_runs_is_ignored(tmp_path: Path) -> None:
    run = started(tmp_path, 2, 4)
    (run.path / "checkpoints" / "latest").write_text("step-000002\n")
    with run.lock():
        checkpoint = run.resume(MANIFEST)
        assert checkpoint is not None
        assert checkpoint.step == 4
        run.checkpoint(5, files(5), {"seen": 5})
    holds(run, 5)


def test_resume_without_a_checkpoint_starts_over(tmp_path: Path) -> None:
    run = started(tmp_path)
    with run.lock():
        run.log(1, {"loss": 1.0})
    with run.lock():
        assert run.resume(MANIFEST) is None
    assert metric_steps(run) == []


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("config.lr", {"config": {"lr": 1e-3, "lora": {"rank": 8}}}),
        ("config.lora.rank", {"config": {"lr": 5e-4, "lora": {"rank": 16}}}),
        ("config.lora.alpha", {"config": {"lr": 5e-4, "lora": {"rank": 8, "alpha": 2}}}),
        ("config.lora", {"config": {"lr": 5e-4}}),
        ("model.sha256", {"model": {"sha256": "c" * 64}}),
        ("data.sha256", {"data": {"sha256": "d" * 64}}),
    ],
)
def test_resume_refuses_another_run(tmp_path: Path, field: str, changed: dict[str, Any]) -> None:
    run = started(tmp_path, 2)
    before = (run.path / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError) as caught, run.lock():
        run.resume({**MANIFEST, **changed})
    assert caught.value.what.startswith(f"{field} was ")
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_writing_needs_the_lock(tmp_path: Path) -> None:
    run = started(tmp_path)
    for write in (
        lambda: run.log(1, {}),
        lambda: run.checkpoint(1, {}, {}),
        lambda: run.write("x", b""),
    ):
        with pytest.raises(RunError, match="not locked"):
            write()


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    run = started(tmp_path, 2)
    hold = (
        "import sys, time\nfrom pathlib import Path\nfrom offapi.training.run import Run\nwith"
        " Run.open(Path(sys.argv[1])).lock():\n    print('locked', flush=True)\n   "
        " time.sleep(60)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(run.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match=f"process {other.pid}"), run.lock():
            pass
    finally:
        other.kill()
        other.wait()
    with run.lock():
        run.log(3, {})
    with run.lock(), pytest.raises(RunError, match="being written"), Run.open(run.path).lock():
        pass  # also refused within one process


def test_pruning_keeps_the_last_two_intact(tmp_path: Path) -> None:
    run = started(tmp_path, 1, 2, 3, 4)
    assert sorted(path.name for path in (run.path / "checkpoints").glob("step-*")) == [
        "step-000003",
        "step-000004",
    ]
    _damage(run, 4)
    with run.lock():
        run.checkpoint(5, files(5), {"seen": 5})
    assert {path.name[-1] for path in (run.path / "checkpoints").glob("step-*")} == {"3", "4", "5"}


def test_steps_are_ordered_by_number(tmp_path: Path) -> None:
    run = started(tmp_path)
    with run.lock():
        run.checkpoint(999_999, files(1), {"seen": 1})
        run.checkpoint(1_000_000, files(2), {"seen": 2})
    latest = run.latest()
    assert latest is not None
    assert latest.step == 1_000_000


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path) -> None:
    run = started(tmp_path, 2, 4)
    _damage(run, 4)
    with run.lock():
        checkpoint = run.resume(MANIFEST)
        assert checkpoint is not None
        assert (checkpoint.step, checkpoint.skipped) == (2, ("step-000004",))
        assert checkpoint.resumed(8) == "Resumed at step 2 of 8: checkpoint step-000004 is damaged."
        assert metric_steps(run) == [1, 2]
        run.checkpoint(4, files(4), {"seen": 4})  # takes the damaged one's place
    holds(run, 4)
    _damage(run, 4)
    _damage(run, 2)
    with pytest.raises(RunError, match="no checkpoint is intact"):
        run.latest()


def test_only_a_different_checkpoint_of_a_step_is_an_error(tmp_path: Path) -> None:
    run = started(tmp_path, 2)
    with run.lock():
        run.checkpoint(2, files(2), {"seen": 2})
        with pytest.raises(RunError, match="another checkpoint"):
            run.checkpoint(2, files(3), {"seen": 2})
    holds(run, 2)


def test_metrics_cut_short_by_hand_are_refused(tmp_path: Path) -> None:
    run = started(tmp_path, 4)
    os.truncate(run.path / "metrics.jsonl", 5)
    with pytest.raises(RunError, match="as the checkpoint counted"), run.lock():
        run.resume(MANIFEST)


def test_an_unreadable_manifest_is_a_clear_error(tmp_path: Path) -> None:
    run = started(tmp_path)
    (run.path / "manifest.json").write_bytes(b"{")
    with pytest.raises(RunError, match="unreadable"):
        _ = run.manifest


def test_killed_anywhere_in_a_checkpoint_the_run_resumes(tmp_path: Path) -> None:
    """The third checkpoint prunes the first; a kill leaves the second or the third."""
    source = started(tmp_path / "source", 1, 2)

    def third(path: Path) -> None:
        run = Run.open(path)
        with run.lock():
            checkpoint = run.resume(MANIFEST)
            for step in range(checkpoint.step + 1 if checkpoint else 1, 4):
                run.log(step, {"loss": 1 / step})
            run.checkpoint(3, files(3), {"seen": 3})

    shutil.copytree(source.path, tmp_path / "dry")
    total = disk_faults.count(lambda: third(tmp_path / "dry"))
    survivors = []
    for n in range(1, total + 1):
        path = tmp_path / f"kill-{n}"
        shutil.copytree(source.path, path)
        assert disk_faults.kill_at(n, lambda path=path: third(path))  # type: ignore[misc]
        latest = Run.open(path).latest()
        assert latest is not None
        holds(Run.open(path), latest.step)
        survivors.append(latest.step)
        third(path)
        holds(Run.open(path), 3)
        assert metric_steps(Run.open(path)) == [1, 2, 3]
        assert not list(path.rglob(".tmp-*")), "a killed writer's leftovers stay"
        shutil.rmtree(path)
    assert survivors == sorted(survivors)
    assert set(survivors) == {2, 3}


@pytest.mark.parametrize("eager_names", [True, False])
def test_a_power_cut_anywhere_in_a_checkpoint_leaves_one(tmp_path: Path, eager_names: bool) -> None:
    source = started(tmp_path / "source", 1, 2)
    folder = source.path / "checkpoints"
    before = tmp_path / "before"
    shutil.copytree(folder, before)
    operations = disk_faults.record(lambda: checkpoints.commit(folder, 3, files(3), {"seen": 3}, 0))
    assert len(operations) > 15
    survivors = []
    for cut in range(len(operations) + 1):
        left = tmp_path / f"cut-{cut}"
        shutil.copytree(before, left)
        disk_faults.replay(disk_faults.after_power_cut(operations[:cut], eager_names), folder, left)
        latest = checkpoints.latest(left)
        assert latest is not None
        assert {name: (latest.path / name).read_bytes() for name in files(latest.step)} == files(
            latest.step
        )
        survivors.append(latest.step)
        shutil.rmtree(left)
    assert survivors == sorted(survivors)
    assert set(survivors) == {2, 3}
    committed = max(
        i for i, (name, path, _) in enumerate(operations) if name == "fsync" and path == folder
    )
    assert survivors[committed + 1] == 3


def test_killed_at_each_fsync_of_the_real_system_call(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if (
        strace is None
        or subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True).returncode
    ):
        pytest.skip("strace is not installed or not permitted here")
    source = started(tmp_path / "source", 1, 2)
    script = (
        "import sys\nfrom pathlib import Path\nfrom offapi.training import checkpoints\n"
        f"checkpoints.commit(Path(sys.argv[1]), 3, {files(3)!r}, {{'seen': 3}}, 0)\n"
    )
    survivors = []
    for n in range(1, 7):  # two files, manifest, folder, parent, and none after
        left = tmp_path / f"fsync-{n}"
        shutil.copytree(source.path / "checkpoints", left)
        inject = [
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fsync",
            "-e",
            f"inject=fsync:signal=KILL:when={n}",
        ]
        done = subprocess.run(
            [strace, *inject, sys.executable, "-c", script, str(left)], capture_output=True
        )
        assert (done.returncode != 0) == (n <= 5), done.stderr
        latest = checkpoints.latest(left)
        assert latest is not None
        survivors.append(latest.step)
    assert survivors == [2, 2, 2, 2, 3, 3]


def test_random_kills_never_lose_a_committed_step(tmp_path: Path) -> None:
    """A real process is killed at random moments and resumed each time."""
    run = started(tmp_path, 1)
    script = (
        "import sys\nfrom pathlib import Path\nfrom offapi.training.run import Run\n"
        "run = Run.open(Path(sys.argv[1]))\n"
        "with run.lock():\n"
        f"    start = run.resume({MANIFEST!r}).step\n"
        "    for step in range(start + 1, 10_000):\n"
        "        run.log(step, {'loss': 0})\n"
        "        run.checkpoint(step, {'w': bytes([step % 256]) * 5000}, {'seen': step})\n"
        "        print(step, flush=True)\n"
    )
    committed = 1
    for attempt in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(run.path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        committed = int(child.stdout.readline())
        time.sleep(0.013 * attempt)
        child.kill()
        committed = max([committed, *(int(line) for line in child.stdout.read().split())])
        child.wait()
        latest = run.latest()
        assert latest is not None
        assert latest.step >= committed
        assert (latest.path / "w").read_bytes() == bytes([latest.step % 256]) * 5000
    with run.lock():
        checkpoint = run.resume(MANIFEST)
    assert checkpoint is not None
    assert metric_steps(run) == list(range(1, checkpoint.step + 1))


FULL = """
import json, sys
from pathlib import Path
from offapi.files import atomic
from offapi.training.run import Run
run = Run.create(Path("."), "a", {"config": {}})
written = 0
try:
    with run.lock():
        run.checkpoint(1, {"w": b"x" * 20_000}, {})
        try:
            run.checkpoint(2, {"w": b"x" * 500_000}, {})
        except atomic.NotCommitted as error:
            print(error)
        for step in range(100_000):
            run.log(step, {"loss": 0.5})
            written += 1
except atomic.NotCommitted as error:
    print(error)
lines = (run.path / "metrics.jsonl").read_bytes()
assert lines.endswith(b"\\n") and len(lines.splitlines()) == written, written
print(run.latest().step)
"""


def test_a_full_disk_stops_with_the_last_checkpoint_whole() -> None:
    done = disk_faults.on_small_disk(FULL, size="256k")
    assert done.returncode == 0, done.stderr
    checkpoint, metrics, latest = done.stdout.splitlines()
    assert "step-000002: could not be written: No space left" in checkpoint
    assert "metrics.jsonl: could not be written" in metrics
    assert latest == "1"


def _damage(run: Run, step: int) -> None:
    path = run.path / f"checkpoints/step-{step:06d}/adapter.safetensors"
    data = bytearray(path.read_bytes())
    data[7] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(atomic.Damaged):
        atomic.verify(path.parent)
