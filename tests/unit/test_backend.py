"""Which backend is chosen, in which dtype it computes, and which settings are refused."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest

from offapi import backend
from offapi.activation_memory import activation_bytes
from offapi.errors import BackendError
from offapi.model_spec import Limits, LoraSpec, ModelSpec
from offapi.optimizer import AdamW


@pytest.mark.parametrize(
    ("system", "machine", "installed", "chosen"),
    [
        ("Darwin", "arm64", ("mlx", "torch"), "mlx"),
        ("Darwin", "x86_64", ("mlx", "torch"), "torch"),
        ("Linux", "arm64", ("mlx", "torch"), "torch"),
        ("Linux", "x86_64", ("mlx", "torch"), "torch"),
        ("Darwin", "arm64", ("torch",), "torch"),
        ("Linux", "x86_64", ("mlx",), "mlx"),
        ("Linux", "x86_64", (), "torch"),
    ],
)
def test_the_default_suits_the_machine_and_what_is_installed(
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    machine: str,
    installed: tuple[str, ...],
    chosen: str,
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(backend, "find_spec", lambda name: name if name in installed else None)
    assert backend.default_backend() == chosen


def test_an_unknown_backend_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(BackendError, match="unknown backend 'jax'") as refused:
        backend.require_installed("jax")
    assert "mlx" in refused.value.next_step


def test_equal_bytes_are_asked_of_the_numeric_library(
    monkeypatch: pytest.MonkeyPatch, backend_name: str
) -> None:
    monkeypatch.delenv("MKL_CBWR", raising=False)
    backend.find(backend_name)
    assert os.environ["MKL_CBWR"] == "AUTO,STRICT"


def test_a_dtype_that_is_given_is_kept(backend_name: str) -> None:
    assert backend.resolve_dtype("bfloat16", backend_name, "cpu") == "bfloat16"
    assert backend.resolve_dtype("auto", backend_name, "cpu") == "float32"


@pytest.mark.parametrize(
    "wrong", [{"beta1": 1.0}, {"beta2": -0.1}, {"eps": 0.0}, {"weight_decay": -1.0}]
)
def test_an_optimizer_out_of_its_bounds_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AdamW(**wrong)
    assert AdamW(beta1=0.0, beta2=0.0, max_grad_norm=0.0).weight_decay == 0.0


def test_an_adapters_scale_is_alpha_by_rank() -> None:
    assert LoraSpec(rank=4, alpha=8.0).scale == 2.0
    with pytest.raises(ValueError, match="rank"):
        LoraSpec(rank=0)
    with pytest.raises(ValueError, match="alpha"):
        LoraSpec(alpha=0.0)


def test_a_micro_batch_is_as_large_as_asked() -> None:
    assert Limits().micro_batch == 2048
    assert Limits(train_tokens=300).micro_batch == 300
    with pytest.raises(ValueError, match="train_tokens"):
        Limits(train_tokens=0)


def test_a_model_whose_sizes_cannot_be_read_is_left_to_the_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[ModelSpec] = []
    monkeypatch.setattr(backend, "find", lambda name: taken.append)
    backend.load("torch", ModelSpec(tmp_path, dtype="float32"))
    assert taken[0].activation_bytes is None
    sizes = '{"hidden_size": 10, "intermediate_size": 0, "num_hidden_layers": 3}'
    (tmp_path / "config.json").write_text(sizes)
    backend.load("torch", ModelSpec(tmp_path, dtype="bfloat16"))
    assert taken[1].activation_bytes == activation_bytes(tmp_path, "torch", "bfloat16")
    backend.load("torch", ModelSpec(tmp_path, dtype="float32", activation_bytes=5.0))
    assert taken[2].activation_bytes == 5.0


def test_a_model_is_loaded_in_the_dtype_that_auto_stands_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[ModelSpec] = []
    monkeypatch.setattr(backend, "find", lambda name: taken.append)

    def resolve(dtype: str, name: str, device: str) -> str:
        return "bfloat16" if (dtype, name, device) == ("auto", "torch", "cuda:1") else "float32"

    monkeypatch.setattr(backend, "resolve_dtype", resolve)
    backend.load("torch", ModelSpec(tmp_path, dtype="auto", device="cuda:1"))
    assert taken[0].dtype == "bfloat16"
