"""A real backend that notes what a recipe asks of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from offapi.backend import Backend, load
from offapi.episodes import Episode
from offapi.model_spec import ModelSpec
from offapi.optimizer import AdamW
from offapi.policy_loss import Experience, PolicyLoss, Update
from offapi.training import job


@dataclass
class Noted:
    """What was asked, in order; a second student's calls follow the first one's."""

    specs: list[ModelSpec] = field(default_factory=list)
    batches: list[list[Episode]] = field(default_factory=list)
    steps: list[tuple[float, AdamW]] = field(default_factory=list)
    rollouts: list[tuple[list[tuple[int, ...]], int, Any]] = field(default_factory=list)
    scores: list[tuple[str, float]] = field(default_factory=list)
    updates: list[tuple[list[Experience], PolicyLoss, Update]] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """The learning rate of each step."""
        return [lr for lr, _ in self.steps]


class WatchedBackend:
    """Passes every call on to `inner`, after noting the ones that decide what is learned."""

    def __init__(self, inner: Backend, noted: Noted) -> None:
        self._inner, self._noted = inner, noted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def forward_backward(self, batch: Sequence[Episode]) -> Any:
        self._noted.batches.append(list(batch))
        return self._inner.forward_backward(batch)

    def optim_step(self, lr: float, optimizer: AdamW) -> Any:
        self._noted.steps.append((lr, optimizer))
        return self._inner.optim_step(lr, optimizer)

    def rollout(
        self, prompts: Any, n: int, sampling: Any, keys: Any = None, starts: Any = None
    ) -> Any:
        self._noted.rollouts.append(([tuple(prompt) for prompt in prompts], n, sampling))
        return self._inner.rollout(prompts, n, sampling, keys, starts)

    def score(self, episodes: Any, by: Any = "policy", temperature: float = 1.0) -> Any:
        self._noted.scores.append((by, temperature))
        return self._inner.score(episodes, by, temperature)

    def policy_gradient(self, batch: Sequence[Experience], loss: PolicyLoss) -> Update:
        update = self._inner.policy_gradient(batch, loss)
        self._noted.updates.append((list(batch), loss, update))
        return update


def watch_backends(monkeypatch: pytest.MonkeyPatch) -> Noted:
    """Have recipes load backends that note what is asked of them."""
    noted = Noted()

    def watched(name: str, spec: ModelSpec) -> Any:
        noted.specs.append(spec)
        return WatchedBackend(load(name, spec), noted)

    monkeypatch.setattr(job, "load", watched)
    return noted


Watch = Callable[[], Noted]
