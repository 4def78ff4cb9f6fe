"""The Backend object: one policy, and the verbs of the contract (`offapi.backend.Backend`)."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType

import mlx.core as mx
import psutil

from offapi.backend import By, Group, Memory, Sampling
from offapi.engine import Engine, StartMatcher
from offapi.episodes import Episode, Floats, Metrics, Totals
from offapi.errors import BackendError
from offapi.model_spec import Limits, ModelSpec
from offapi.optimizer import AdamW, TrainState
from offapi.policy_loss import Experience, PolicyLoss, Rule, Update

from . import checkpoint, losses, ranks
from . import optimizer as adamw
from .advantages import advantages
from .loader import load_policy
from .lora import Adapters
from .policy import adapter_norm, check_trainable
from .policy_gradient import policy_gradient
from .rollout import open_engine, rollout


def load(spec: ModelSpec) -> MLXBackend:
    """Load `spec` with MLX.

    Raise ModelError for a bad model folder, BackendError for a missing device.
    """
    return MLXBackend(spec)


def prefers_bfloat16(device: str) -> bool:
    """Whether `device` is a GPU: it computes in bfloat16 with half the memory, and faster."""
    return device != "cpu" and mx.is_available(mx.gpu)


class MLXBackend:
    """One loaded model; see `offapi.backend.Backend` for units, shapes and errors."""

    name = "mlx"

    def __init__(self, spec: ModelSpec) -> None:
        if spec.shard:
            raise BackendError(
                "MLX has nothing that splits a base over ranks as they use it.",
                next_step="Leave out `shard` or set `quantize`; torch has it, started by torchrun.",
            )
        self.device = _use_device(spec.device)
        mx.reset_peak_memory()
        self._limits = spec.limits
        self._policy = load_policy(spec)
        self._path = spec.path
        self._gradients: losses.Gradients = {}
        self._moments: adamw.Moments = {}
        self._step = 0

    @property
    def implementation(self) -> str:
        """How the model is computed."""
        return self._policy.implementation

    @property
    def ranks(self) -> int:
        """How many processes compute."""
        return 1

    @property
    def limits(self) -> Limits:
        """How much the backend holds at once."""
        return self._limits

    @property
    def prefilled_tokens(self) -> int:
        """Prompt tokens run through the model by `rollout` since load."""
        return self._policy.prefilled_tokens

    def rollout(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        sampling: Sampling,
        keys: Sequence[int] | None = None,
        starts: Sequence[StartMatcher | None] | None = None,
    ) -> Iterator[Group]:
        """Yield one group of `n` completions for each prompt, as groups finish."""
        return rollout(self._policy, prompts, n, sampling, keys, self._limits, starts)

    def engine(
        self, adapters: Mapping[str, Path | None] = MappingProxyType({}), cache_bytes: int = 0
    ) -> Engine:
        """Return an engine of this model, with further adapters by name."""
        named = Adapters(self._policy, adapters, self._path)
        return open_engine(self._policy, self._limits, named, cache_bytes)

    def score(
        self, episodes: Sequence[Episode], by: By = "policy", temperature: float = 1.0
    ) -> list[Floats]:
        """Return the logprobs (nats) of the masked tokens of each episode."""
        with self._policy.scored_by_reference() if by == "reference" else nullcontext():
            return losses.score(self._policy, episodes, self._limits, temperature)

    def forward_backward(self, batch: Sequence[Episode], whole: Totals | None = None) -> Metrics:
        """Add the gradient of the cross-entropy over the whole batch."""
        check_trainable(self._policy)
        metrics, self._gradients = losses.forward_backward(
            self._policy, batch, self._limits, self._gradients, whole
        )
        return metrics

    def advantages(self, rewards: Sequence[Sequence[float]], rule: Rule) -> list[Floats]:
        """Return the advantages of each group of `rewards` under `rule`."""
        return advantages(rewards, rule)

    def policy_gradient(
        self, batch: Sequence[Experience], loss: PolicyLoss, whole: Totals | None = None
    ) -> Update:
        """Add the gradient of `loss` over the whole batch."""
        check_trainable(self._policy)
        update, self._gradients = policy_gradient(
            self._policy, batch, self._limits, loss, self._gradients, whole
        )
        return update

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def sum_gradients(self) -> None:
        """Add up what all ranks have accumulated."""
        self._gradients = ranks.sum_gradients(self._policy, self._gradients)

    def optim_step(self, lr: float, optimizer: AdamW) -> Metrics:
        """Clip, update the adapter, clear the gradients."""
        gradients, self._gradients = self._gradients, {}
        parameters = self._policy.parameters()
        updated, self._moments, norm = adamw.step(
            parameters, gradients, self._moments, self._step, lr, optimizer
        )
        self._policy.assign(updated)
        self._policy.version += 1
        self._step += 1
        return {
            "grad_norm": norm,
            "adapter_norm": adapter_norm(self._policy),
            "unreached": float(adamw.unreached(gradients)),
        }

    def state(self) -> TrainState:
        """Return adapter and optimizer as arrays, exact copies."""
        return checkpoint.state(self._policy, self._moments, self._step)

    def restore(self, state: TrainState) -> None:
        """Put `state` in place, and drop accumulated gradients."""
        self._moments = checkpoint.restore(self._policy, state)
        self._policy.version += 1
        self._gradients, self._step = {}, state.step

    def memory(self) -> Memory:
        """Return the bytes of MLX's buffers on a GPU, or of the process on a CPU."""
        free = self._policy.checkpointing.memory.free
        if mx.default_device().type == mx.DeviceType.gpu:
            info = mx.device_info()
            total = int(info.get("memory_size") or info["total_memory"])  # Metal's name, CUDA's
            return Memory(mx.get_active_memory(), mx.get_peak_memory(), total, free)
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        used = psutil.Process().memory_info().rss
        return Memory(used, max(peak, used), psutil.virtual_memory().total, free)

    def close(self) -> None:
        """Free the model."""
        del self._policy
        self._gradients, self._moments = {}, {}
        mx.clear_cache()


def _use_device(device: str) -> str:
    """Make `device` the default one and return its name."""
    if device not in ("auto", "cpu", "gpu"):
        raise BackendError(
            f"device must be auto, cpu or gpu for MLX, got {device!r}.",
            next_step="Use device = 'auto'.",
        )
    gpu = mx.is_available(mx.gpu)
    if device == "gpu" and not gpu:
        raise BackendError(
            "device 'gpu' cannot be used: MLX finds no GPU here.",
            next_step="Use device = 'cpu', or the torch backend.",
        )
    chosen = "gpu" if gpu and device != "cpu" else "cpu"
    mx.set_default_device(mx.gpu if chosen == "gpu" else mx.cpu)
    return chosen
