"""An install with one backend: a model is added, trained, scored and exported without the other's library."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import one_backend
import orjson
import pytest
import recipe_folder
import tiny_adapter

NEEDS = {"torch": ("torch", "peft"), "mlx": ("mlx", "mlx_lm")}
LACKS = {"torch": ("mlx", "mlx_lm"), "mlx": ("torch", "peft", "accelerate", "bitsandbytes")}
REFERENCE = {"torch": "transformers", "mlx": "mlx-lm"}
PATIENCE = 120  # seconds


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_nothing_needs_the_other_backends_library(name: str, tmp_path: Path) -> None:
    if not all(map(find_spec, NEEDS[name])):
        pytest.skip(f"{name} is not installed")
    folder = tmp_path / "run"
    common: dict[str, Any] = {"model": "small", "epochs": 1.0, "max_tokens": 512}
    sft = recipe_folder.lay_out(folder, "sft", count=4, **common)
    grpo = recipe_folder.lay_out(folder, "grpo", count=4, num_generations=2, **common)
    peft = tiny_adapter.write_adapter(folder / "peft", tiny_adapter.draw_adapter())
    scored = ("eval", "--task", "task.py", "--data", "val.jsonl", "--model", "small")
    commands = [
        ("models", "add", "model", "--name", "small"),
        ("train", sft.name, "--json"),
        ("train", grpo.name, "--json"),
        (*scored, "--adapter", str(peft)),
        ("export", "runs/sft", "--to", "fused", "--out", "fused"),
    ]
    words = (orjson.dumps(part).decode() for part in (LACKS[name], commands))
    ran = subprocess.run(
        [sys.executable, one_backend.__file__, *words],
        cwd=folder,
        env=recipe_folder.environment(OFFAPI_HOME=str(tmp_path / "home")),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    done = orjson.loads(ran.stdout)
    assert [code for code, *_ in done] == [0, 0, 3, 0, 0], done  # GRPO learned nothing
    assert f"Compared with {REFERENCE[name]} " in done[0][2]
    assert f"{name}: packed, within" in done[0][2]
    assert ran.stderr == ""
