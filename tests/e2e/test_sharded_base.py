"""A base split over two real ranks by FSDP2: trained as one process does, half of it on each."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import orjson
import pytest
import recipe_folder
import shard_script
import tiny_llama

CLOSE = 1e-6
SECONDS = 300


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_two_ranks_hold_half_the_base_each_and_train_as_one(tmp_path: Path) -> None:
    model = tiny_llama.write(tmp_path / "model")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*run, shard_script.__file__, str(model)],
        env=recipe_folder.environment(PYTHONPATH=":".join(path for path in sys.path if path)),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [orjson.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    first, other = sorted(said, key=lambda each: int(each["rank"]))
    assert len(first["held"]) > 10
    half = first["whole"] / 2
    for size in (*first["held"], *other["held"]):  # after each load and each step
        assert size == pytest.approx(half, rel=0.02)
    assert half < first["gathered"] < 0.75 * first["whole"]  # after a pass, what layers are not
    assert max(first["apart"].values()) < CLOSE
    assert first["nats"] < 1e-4  # and after the errors
    on_rank_1, on_rank_0 = first["errors"]
    assert on_rank_1.startswith("rank 1: ")
    assert on_rank_0.startswith("episode 'no' has token 1000000")
