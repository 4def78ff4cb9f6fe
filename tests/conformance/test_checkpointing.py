"""Layers recomputed in the backward pass: the same gradient to the last bit, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from offapi.backend import Backend
from offapi.episodes import Episode, Segment
from offapi.model_spec import Limits
from offapi.optimizer import AdamW, Arrays
from offapi.policy_loss import Experience, PolicyLoss

Adapted = Callable[..., Backend]
WHERE = {"torch": ("packed_attention", "Packed"), "mlx": ("cache", "Block")}
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
    found = []
    for step in range(2):
        if step:
            backend.policy_gradient(GROUPS, PolicyLoss("grpo", max_tokens=20))
        else:
            backend.forward_backward(ALONE)
        backend.optim_step(0.0, AdamW(beta1=0.0, max_grad_norm=0.0))
        found.append(backend.state().exp_avg)
    return found


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
