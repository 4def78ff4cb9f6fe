"""Two real processes train as one does, by each library's own launcher; a killed rank is no loss.

One launch for each backend: SFT to its end, on torch with its base whole and sharded, then GRPO
(sharded on torch), in which rank 1 is killed in a step. Then GRPO is resumed on one rank, and is
what it would have been.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import rank_script
import recipe_folder
from safetensors.numpy import load_file

sys.path.append(str(Path(__file__).parents[1] / "recipes"))
grpo_signal: Any = import_module("grpo_signal")

CLOSE = 1e-6
KILLED_AT = 4  # optimizer step: the second of GRPO's step 4, the others of which have no signal
MLX_LAUNCH = (
    "import sys; from mlx._distributed_utils.launch import main; sys.argv[0] = 'mlx.launch'; main()"
)
SECONDS = 600


@pytest.fixture(params=["mlx", "torch"])
def backend(request: pytest.FixtureRequest) -> str:
    """The backend under test; skipped where its libraries are not installed."""
    needed = {"torch": ("torch", "peft"), "mlx": ("mlx", "mlx_lm")}[request.param]
    if not all(map(find_spec, needed)):
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


def launcher(backend: str) -> list[str]:
    """Return the words that start two ranks on this machine."""
    if backend == "torch":
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        first = one.getsockname()[1]
        two.bind(("127.0.0.1", first + 1))
    return [sys.executable, "-c", MLX_LAUNCH, "-n", "2", "-p", str(first), "--", sys.executable]


def launch(
    backend: str,
    commands: list[list[str]],
    folder: Path,
    stopped: tuple[int, str] = (KILLED_AT, "kill"),
    meanwhile: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
) -> subprocess.CompletedProcess[str]:
    """Run `commands` on two ranks, the second of which is `stopped` in the last one."""
    words = [rank_script.__file__, orjson.dumps(commands).decode(), *map(str, stopped)]
    tests = ":".join(path for path in sys.path if path)
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(
            [*launcher(backend), *words],
            env=recipe_folder.environment(PYTHONPATH=tests),
            stdin=subprocess.PIPE,  # open, as in a terminal: mlx.launch reads it
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            meanwhile(process)
            code = process.wait(SECONDS)
        finally:
            process.kill()
        said.seek(0)
        return subprocess.CompletedProcess(words, code, "", said.read())


def apart(one: Path, other: Path) -> float:
    """Return the largest difference of two adapters, or models."""
    first, second = (load_file(next(path.glob("*model.safetensors"))) for path in (one, other))
    assert first.keys() == second.keys()
    return float(max(np.abs(first[name] - second[name]).max() for name in first))


def tokens(run: Path, step: int) -> list[list[int]]:
    """Return the completions that were drawn in a step of GRPO."""
    lines = (run / f"rollouts/{step:06d}.jsonl").read_bytes().splitlines()
    return [orjson.loads(line)["source"]["tokens"] for line in lines]


def test_two_processes_end_with_one_processs_adapter(tmp_path: Path, backend: str) -> None:
    sft = recipe_folder.lay_out(tmp_path / "sft", batch_size=3, epochs=1.0, lr=1e-3)
    grpo = grpo_signal.lay_out(tmp_path / "grpo", lr=1e-3, epochs=1.0, checkpoint_every=1)
    # At AdamW's own eps, a gradient that is nothing but rounding moves its weight by a rate's tenth.
    train = ["train", "--backend", backend, "--plain", "--set", "optimizer.eps=1e-5"]
    full = ["--set", "full=true", "--set", "epochs=0.3"]
    for recipe, name, more in ((sft, "alone", []), (sft, "whole", full), (grpo, "alone", [])):
        alone = recipe_folder.offapi(*train, str(recipe), "--set", f'name="{name}"', *more)
        assert alone.returncode == 0, alone.stderr
    two = [*train, "--set", 'name="two"']
    shard = ["--set", "shard=true"] if backend == "torch" else []
    halves = [[*train, *shard, str(sft), "--set", 'name="halves"']] if shard else []
    whole = [*train, "--set", 'name="two-whole"', *full, str(sft)]
    commands = [[*two, str(sft)], whole, *halves, [*two, *shard, str(grpo)]]
    done = launch(backend, commands, tmp_path)
    runs = sft.parent / "runs"
    assert apart(runs / "alone" / "adapter", runs / "two" / "adapter") < CLOSE, done.stderr
    alone_metrics, metrics = (recipe_folder.metrics(runs / name) for name in ("alone", "two"))
    for one, other in zip(alone_metrics, metrics, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    assert (runs / "alone/report.json").read_bytes() == (runs / "two/report.json").read_bytes()
    (attempt,) = orjson.loads((runs / "two/manifest.json").read_bytes())["attempts"]
    assert attempt["ranks"] == 2
    assert [each["connections"] for each in attempt["network"]["opened"]] != []
    assert apart(runs / "whole" / "model", runs / "two-whole" / "model") < CLOSE, done.stderr
    if halves:
        assert apart(runs / "alone" / "adapter", runs / "halves" / "adapter") < CLOSE, done.stderr
    assert done.stderr.count("Computing on 2 ranks.") == len(commands)  # once a run, by rank 0

    assert done.returncode != 0 or backend == "mlx", done.stderr  # mlx.launch ends with 0
    runs = grpo.parent / "runs"
    assert not (runs / "two" / "adapter").exists()
    resumed = recipe_folder.offapi(*train, str(grpo), "--set", 'name="two"', "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "Resumed at step 3 of 5" in resumed.stderr
    last = "checkpoints/step-000005"
    assert apart(runs / "alone" / last, runs / "two" / last) < CLOSE
    for step in range(1, 6):
        assert tokens(runs / "two", step) == tokens(runs / "alone", step)


def test_ctrl_c_ends_a_run_that_can_be_resumed(tmp_path: Path, backend: str) -> None:
    recipe = recipe_folder.lay_out(tmp_path / "sft", batch_size=3, checkpoint_every=1, lr=1e-3)
    train = ["train", str(recipe), "--backend", backend, "--plain", "--set", "optimizer.eps=1e-5"]
    alone = recipe_folder.offapi(*train, "--set", 'name="alone"')
    assert alone.returncode == 0, alone.stderr
    run = recipe.parent / "runs/two"
    third = run / "checkpoints/step-000003"

    def interrupt(process: subprocess.Popen[bytes]) -> None:
        recipe_folder.until(lambda: process.poll() is not None or third.exists())
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does

    two = [*train, "--set", 'name="two"']
    done = launch(backend, [two], tmp_path, (4, "wait"), interrupt)
    # mlx.launch stops writing what its ranks say
    assert "Resume with `" in done.stderr or backend == "mlx", done.stderr
    (attempt,) = orjson.loads((run / "manifest.json").read_bytes())["attempts"]
    assert attempt["outcome"] == "interrupted"
    assert not (run / "adapter").exists()
    resumed = recipe_folder.offapi(*two, "--resume")
    assert "Resumed at step 3 of" in resumed.stderr, done.stderr
    assert apart(run.with_name("alone") / "adapter", run / "adapter") < CLOSE


def test_python_m_offapi_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "offapi", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("offapi, version")
