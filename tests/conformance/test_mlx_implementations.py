"""How the MLX backend chooses between packed rows and mlx-lm's forward, and that both are one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import WINDOW, write

from offapi.backend import Backend, Sampling, load
from offapi.episodes import Episode, Segment
from offapi.errors import BackendError, ModelError
from offapi.model_spec import LoraSpec, ModelSpec

pytest.importorskip("torch", reason="families are written by transformers, with torch")
backend_module = pytest.importorskip("offapi.backends.mlx_backend.backend")
cache = pytest.importorskip("offapi.backends.mlx_backend.cache")

SHARED = tuple(range(3, 3 + WINDOW + 8))  # longer than the window, which cuts it
ROWS = [(*SHARED, *range(90, 90 + n)) for n in (30, 22, 9)]
EPISODES = [
    Episode("", (Segment(row[: len(SHARED)], False), Segment(row[len(SHARED) :], True)))
    for row in ROWS
]
LORA = LoraSpec(rank=2, targets=("q_proj", "k_proj", "v_proj"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Windows, windows and sinks, convolutions, and a window that mlx-lm does not cut at."""
    names = ("gemma3-cut", "gpt-oss", "lfm2", "mistral-v0.1")
    return {name: write(name, tmp_path_factory.mktemp(name)) for name in names}


def start(folder: Path, **fields: Any) -> Backend:
    return load("mlx", ModelSpec(folder, device="cpu", **fields))


def gradients(backend: Backend) -> dict[str, Any]:
    backend.forward_backward(EPISODES)
    found: dict[str, Any] = getattr(backend, "_gradients")  # noqa: B009
    return {name: np.array(gradient) for name, gradient in found.items()}


@pytest.mark.parametrize("name", ["gemma3-cut", "gpt-oss"])
def test_packed_rows_are_scored_and_learned_as_by_the_library(
    folders: dict[str, Path], name: str
) -> None:
    both = [start(folders[name], lora=LORA, implementation=how) for how in ("packed", "library")]
    assert [backend.implementation for backend in both] == ["packed", "library"]
    for one, other in zip(*(backend.score(EPISODES) for backend in both), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    packed, plain = (gradients(backend) for backend in both)
    largest = max(np.abs(gradient).max() for gradient in plain.values())
    for path, gradient in packed.items():
        np.testing.assert_allclose(gradient, plain[path], atol=1e-4 * largest)
    sampling = Sampling(max_tokens=12, stop_ids=(), temperature=1.0, seed=3)
    groups = [list(backend.rollout([SHARED, ROWS[2]], 3, sampling)) for backend in both]
    said = [{g.prompt: [c.tokens for c in g.completions] for g in each} for each in groups]
    assert said[0] == said[1]


def test_what_cannot_be_computed_as_asked_is_refused(folders: dict[str, Path]) -> None:
    assert start(folders["lfm2"]).implementation == "library"
    with pytest.raises(ModelError, match=r"packed on MLX: its layers keep other state \(Arrays"):
        start(folders["lfm2"], implementation="packed")
    with pytest.raises(ModelError, match=rf"without its window .sliding_window = {WINDOW}."):
        start(folders["mistral-v0.1"], implementation="library")


def test_packed_rows_that_differ_are_not_taken(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = cache.Block.attend

    def scaled(self: Any, queries: Any, *rest: Any, **more: Any) -> Any:
        return true(self, queries * 1.5, *rest, **more)

    monkeypatch.setattr(cache.Block, "attend", scaled)
    assert start(folders["gemma3-cut"]).implementation == "library"
    with pytest.raises(ModelError, match=r"its logits are off by [0-9.]+ of their size"):
        start(folders["gemma3-cut"], implementation="packed")


def test_rows_that_would_be_rotated_otherwise_are_refused(tmp_path: Path) -> None:
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    limit = len(ROWS[1])
    folder = write("qwen3", tmp_path, rope_scaling=scaling, max_position_embeddings=limit)
    backend = start(folder)
    assert len(backend.score(EPISODES[1:])) == 2
    with pytest.raises(BackendError, match=f"at most {limit} here"):
        backend.score(EPISODES)
    with pytest.raises(BackendError, match=f"at most {limit} here"):
        list(backend.rollout([ROWS[1]], 1, Sampling(max_tokens=1, stop_ids=())))
