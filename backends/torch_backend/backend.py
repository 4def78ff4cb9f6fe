"""The Backend object: one policy, and the verbs of the contract (`offapi.backend.Backend`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType

import torch

from offapi.backend import Backend, By, Group, Memory, Sampling, StartMatcher
from offapi.engine import Engine
from offapi.episodes import Episode, Floats, Metrics, Totals
from offapi.errors import BackendError
from offapi.model_spec import Limits, ModelSpec
from offapi.optimizer import AdamW, TrainState
from offapi.policy_loss import Experience, PolicyLoss, Rule, Update

from . import checkpoint, losses, optimizer, ranks, rollout
from .advantages import advantages
from .load_checks import check_logits, check_weights, choose_implementation
from .lora import Adapters
from .policy import Policy, choose_device, load_policy, measure_memory
from .policy_gradient import policy_gradient


def load(spec: ModelSpec) -> Backend:
    """Load `spec` with torch; raise BackendError or ModelError."""
    policy = load_policy(spec)
    with policy.together():
        check_weights(policy)
        choose_implementation(policy)
        check_logits(policy)
    return TorchBackend(policy)


def prefers_bfloat16(device: str) -> bool:
    """Whether `device` is a GPU that computes in bfloat16; there it is 3 to 7 times as fast."""
    chosen = choose_device(device)
    return chosen.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


class TorchBackend:
    """One loaded model; every verb is a function in the module of its name."""

    name = "torch"

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.device = str(policy.device)

    @property
    def implementation(self) -> str:
        """How the model is computed."""
        return self.policy.implementation

    @property
    def ranks(self) -> int:
        """How many processes compute."""
        return 1

    @property
    def limits(self) -> Limits:
        """How much the backend holds at once."""
        return self.policy.spec.limits

    @property
    def prefilled_tokens(self) -> int:
        """Prompt tokens run through the model by `rollout` since load."""
        return self.policy.prefilled_tokens

    def rollout(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        sampling: Sampling,
        keys: Sequence[int] | None = None,
        starts: Sequence[StartMatcher | None] | None = None,
    ) -> Iterator[Group]:
        return rollout.rollout(self.policy, prompts, n, sampling, keys, starts)

    def engine(
        self, adapters: Mapping[str, Path | None] = MappingProxyType({}), cache_bytes: int = 0
    ) -> Engine:
        if self.policy.lockstep:
            raise BackendError(
                "a sharded model answers rollouts, and has no engine: its steps are all ranks'.",
                next_step="Leave out `shard`.",
            )
        further = Adapters(self.policy.model, self.policy.spec, adapters)
        return rollout.start_engine(self.policy, further, cache_bytes)

    def score(
        self, episodes: Sequence[Episode], by: By = "policy", temperature: float = 1.0
    ) -> list[Floats]:
        return losses.score(self.policy, episodes, by, temperature)

    def forward_backward(self, batch: Sequence[Episode], whole: Totals | None = None) -> Metrics:
        return losses.forward_backward(self.policy, batch, whole)

    def advantages(self, rewards: Sequence[Sequence[float]], rule: Rule) -> list[Floats]:
        return advantages(rewards, rule, self.policy.device)

    def policy_gradient(
        self, batch: Sequence[Experience], loss: PolicyLoss, whole: Totals | None = None
    ) -> Update:
        return policy_gradient(self.policy, batch, loss, whole)

    def together(self) -> AbstractContextManager[None]:
        return self.policy.together()

    def sum_gradients(self) -> None:
        ranks.sum_gradients(self.policy)

    def optim_step(self, lr: float, optimizer_spec: AdamW) -> Metrics:
        return optimizer.step(self.policy, lr, optimizer_spec)

    def state(self) -> TrainState:
        return checkpoint.state(self.policy)

    def restore(self, state: TrainState) -> None:
        checkpoint.restore(self.policy, state)

    def memory(self) -> Memory:
        return measure_memory(self.policy)

    def close(self) -> None:
        del self.policy
