"""Layers recomputed in the backward pass: the same gradient to the last bit, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest

from offapi import backend as seam
from offapi.backend import Backend
from offapi.episodes import Episode, Segment
from offapi.model_spec import Limits, LoraSpec, ModelSpec
from offapi.optimizer import AdamW, Arrays, TrainState
from offapi.policy_loss import Experience, PolicyLoss

Adapted = Callable[..., Backend]
WHERE = {"torch": ("packed_attention", "Packed"), "mlx": ("cache", "Block")}
RECOMPUTE = {"torch": "checkpoint", "mlx": "recomputed"}  # what a layer is computed again by
# what a model is besides the tiny Llama in float32, in packed rows and with plain LoRA
KINDS: dict[str, dict[str, Any]] = {
    "library": {"implementation": "library"},
    "dora": {"lora": LoraSpec(rank=4, alpha=8.0, dora=True)},
    "4 bits": {"quantize": 4},
    "8 bits": {"quantize": 8},
}
ALL = LoraSpec(rank=4, alpha=8.0, targets=("all-linear",))
FAMILIES = ("gemma3n", "gpt-oss", "lfm2")  # keys of another layer; experts and sinks; convolutions
PROMPTS = (tuple(range(40, 70)), tuple(range(80, 91)))


def episode(prompt: int, *answer: int) -> Episode:
    return Episode("e", (Segment(PROMPTS[prompt], False), Segment(answer, True)))


GROUPS = [
    Experience(episode(0, *range(3, 20)), 1.2),
    Experience(episode(0, 4, 5, 6), -0.7),
    Experience(episode(1, 9, 10, 11, 12), 0.3),
    Experience(episode(0, 8), -0.4),
    Experience(episode(1, 100, 101), -0.9),
]
ALONE = [episode(0, *range(3, 30)), episode(1, 7, 8, 9)]


def gradients(backend: Backend) -> list[Arrays]:
    """Return the gradients of a supervised batch and of groups with shared prefixes."""
    backend.forward_backward(ALONE)
    return [gradient(backend), of_groups(backend)]


def of_groups(backend: Backend) -> Arrays:
    """Return the gradient of groups with shared prefixes."""
    backend.policy_gradient(GROUPS, PolicyLoss("grpo", max_tokens=20))
    return gradient(backend)


def gradient(backend: Backend) -> Arrays:
    """Return the gradient so far, and begin another."""
    backend.optim_step(0.0, AdamW(beta1=0.0, max_grad_norm=0.0))
    return backend.state().exp_avg


@pytest.fixture
def attended(backend_name: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The layers' calls of attention while rows are read or trained on, one element for each."""
    module, name = WHERE[backend_name]
    kind: Any = getattr(import_module(f"offapi.backends.{backend_name}_backend.{module}"), name)
    calls: list[int] = []
    original = kind.attend

    def counted(*given: Any, **named: Any) -> Any:
        calls.append(1)
        return original(*given, **named)

    monkeypatch.setattr(kind, "attend", counted)
    return calls


@pytest.mark.parametrize("limits", [Limits(), Limits(train_tokens=40)], ids=["whole", "split"])
def test_recomputed_layers_give_the_same_gradient_to_the_last_bit(
    adapted: Adapted, attended: list[int], limits: Limits
) -> None:
    results, counts = [], []
    for checkpointing in (False, True):
        backend = adapted(limits=limits, checkpointing=checkpointing)
        attended.clear()
        results.append(gradients(backend))
        counts.append(len(attended))
    assert counts[1] == 2 * counts[0]  # each layer a second time, in the backward pass
    for before, after in zip(*results, strict=True):
        assert any(array.any() for array in before.values())
        for name, array in before.items():
            np.testing.assert_array_equal(after[name], array, err_msg=name)


def test_layers_are_recomputed_where_memory_would_not_hold_them(
    adapted: Adapted, attended: list[int]
) -> None:
    counts = []
    for size in (1e15, 1.0):
        backend = adapted(activation_bytes=size)
        attended.clear()
        backend.forward_backward(ALONE)
        counts.append(len(attended))
    assert counts[0] == 2 * counts[1]


@pytest.fixture
def recomputed(backend_name: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The layers that are computed again, one element for each."""
    module: Any = import_module(f"offapi.backends.{backend_name}_backend.checkpointing")
    original, calls = getattr(module, RECOMPUTE[backend_name]), list[int]()

    def counted(*given: Any, **named: Any) -> Any:
        calls.append(1)
        return original(*given, **named)

    monkeypatch.setattr(module, RECOMPUTE[backend_name], counted)
    return calls


def both_ways(name: str, calls: list[int], **fields: Any) -> None:
    """Assert that the model gives one gradient, its layers computed once and again."""
    results = []
    for checkpointing in (False, True):
        spec = ModelSpec(device="cpu", checkpointing=checkpointing, **fields)
        with closing(seam.load(name, spec)) as backend:
            drawn, draw = dict(backend.state().adapter), np.random.default_rng(1)
            for key in sorted(drawn):  # B is drawn as zeros, and the gradient of A would be zero
                noise = draw.standard_normal(drawn[key].shape)
                drawn[key] = (drawn[key] + 0.05 * noise).astype(np.float32)
            backend.restore(TrainState(adapter=drawn))
            results.append(of_groups(backend))
            assert bool(calls) == checkpointing
    before, after = results
    assert any(array.any() for array in before.values())
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array, err_msg=key)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputation_goes_with_every_kind_of_base_and_adapter(
    backend_name: str, model_folder: Path, recomputed: list[int], kind: str
) -> None:
    if (backend_name, kind) == ("torch", "4 bits"):
        pytest.importorskip("bitsandbytes")
    both_ways(
        backend_name, recomputed, **{"path": model_folder, "lora": oracle.SHAPE, **KINDS[kind]}
    )


@pytest.mark.skipif(find_spec("torch") is None, reason="families are written by transformers")
@pytest.mark.parametrize("family", FAMILIES)
def test_recomputation_goes_with_other_families(
    backend_name: str, tmp_path: Path, recomputed: list[int], family: str
) -> None:
    import families

    both_ways(backend_name, recomputed, path=families.write(family, tmp_path / family), lora=ALL)
