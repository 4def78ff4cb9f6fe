"""The seam: what a recipe may ask of a backend, and the values that cross.

Tokens in, tokens out. A backend never sees text, documents or what a reward means; a recipe never
sees a tensor. NumPy arrays and frozen dataclasses cross, nothing else. Left out: files. A backend
hands over its state as arrays; `offapi.adapter` and `offapi.training.run` write them, so both
backends share one set of formats.

Shape suffixes of array names, here and in both backends: `_P` prompts, `_G` completions of a group,
`_E` episodes, `_T` tokens (in a loss, the masked tokens of all episodes, end to end), `_U` ratios
(one per token or per episode), `_R` rows decoded or computed together, `_L` positions of a row,
`_S` keys that a position may see, `_V` vocabulary, `_D` hidden size, `_1` an axis of length 1.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

from offapi.activation_memory import activation_bytes
from offapi.completions import Completion as Completion
from offapi.completions import Finish as Finish
from offapi.completions import Group as Group
from offapi.completions import Sampling as Sampling
from offapi.engine import Engine
from offapi.engine import StartMatcher as StartMatcher
from offapi.episodes import Episode, Floats, Metrics, Totals
from offapi.errors import BackendError, nearest
from offapi.implementations import Implementation as Implementation
from offapi.implementations import choose_implementation
from offapi.model_spec import DType, Limits, ModelSpec
from offapi.optimizer import AdamW, TrainState
from offapi.policy_loss import Experience, PolicyLoss, Rule, Update

By = Literal["policy", "reference"]


@dataclass(frozen=True)
class Memory:
    """Memory in bytes: in use now, the peak since load, and what the device has.

    `free` is what was left once the model was loaded; by it the backend decides whether layers are
    recomputed.
    """

    used: int
    peak: int
    total: int
    free: float


class Backend(Protocol):
    """One loaded model. Both backends implement exactly this and pass one conformance suite."""

    name: str
    device: str

    @property
    def implementation(self) -> str:
        """How the model is computed: `packed` or `library`; see `ModelSpec`."""
        ...

    @property
    def limits(self) -> Limits:
        """How much the backend holds at once: as asked for, or as suits the device."""
        ...

    @property
    def ranks(self) -> int:
        """How many processes compute what is asked: 1, but for a backend over all ranks."""
        ...

    @property
    def prefilled_tokens(self) -> int:
        """Prompt tokens that `rollout` ran through the model since load; sharing saves some."""
        ...

    def rollout(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        sampling: Sampling,
        keys: Sequence[int] | None = None,
        starts: Sequence[StartMatcher | None] | None = None,
    ) -> Iterator[Group]:
        """Yield one group of `n` completions for each prompt, as groups finish (in any order).

        The longest common prefix of all prompts is prefilled once per call, each prompt once per
        group. Finished rows leave the batch and waiting ones take their place. `keys` name the
        prompts in the random stream (default: their index), so that a row draws the same tokens
        whatever it is batched with. `starts[i]` bounds the completions of prompt i, each by a
        matcher of its own; None leaves them free. Raise ValueError, at the call, for an empty
        prompt, an unknown token, an `n` below 1, or keys or starts that are not one per prompt.
        """
        ...

    def engine(
        self, adapters: Mapping[str, Path | None] = MappingProxyType({}), cache_bytes: int = 0
    ) -> Engine:
        """Return an engine, whose rows may have the adapters of further PEFT folders, by name.

        A name with None is the base alone. Finished prefixes are kept for reuse in at most
        `cache_bytes`. Raise ModelError for a folder that is damaged or does not fit the model.
        """
        ...

    def score(
        self, episodes: Sequence[Episode], by: By = "policy", temperature: float = 1.0
    ) -> list[Floats]:
        """Return the logprobs (nats) of each episode's masked tokens, shape (mask.sum(),), fp32.

        `by="reference"` scores with the adapter that was loaded, or without one if it was newly
        drawn. If an episode has a sampling mask, logprobs are taken over its sets of tokens. Raise
        ValueError if position 0, which has no context, is masked, if a sampling mask does not fit
        its tokens, if the model does not know a token, or if the temperature is not above 0.
        """
        ...

    def forward_backward(self, batch: Sequence[Episode], whole: Totals | None = None) -> Metrics:
        """Add the gradient of the cross-entropy over the whole batch.

        The loss is -(sum of masked logprobs) / (masked tokens of the batch), in nats, whatever the
        split into micro-batches. Where `batch` is one rank's share, `whole` counts the batch of all
        ranks, and the loss returned is the share's term. Return `loss` and `tokens` (masked). Raise
        ValueError for an empty batch, an episode without masked tokens or one that `score` refuses;
        BackendError without an adapter.
        """
        ...

    def advantages(self, rewards: Sequence[Sequence[float]], rule: Rule) -> list[Floats]:
        """Return the advantages of each group of `rewards` under `rule`, shape (G,) each.

        Groups may differ in size. A group whose rewards are all equal has advantages of exactly 0.
        Raise ValueError for a reward that is not finite, an empty group, no group at all, or an
        unknown rule.
        """
        ...

    def policy_gradient(
        self, batch: Sequence[Experience], loss: PolicyLoss, whole: Totals | None = None
    ) -> Update:
        """Add the gradient of `loss` over the whole batch, whatever the split into micro-batches.

        `whole` is that of `forward_backward`. Experiences of one prompt share its keys and values
        in the graph. An experience that cannot
        contribute (advantage 0 and beta 0) counts in the normaliser and is not computed. Metrics:
        `loss`; `tokens` computed; `ratio/mean`, `ratio/max`; and `clip_ratio/low_mean`,
        `clip_ratio/high_mean`, the share of ratios that were clipped. Raise ValueError for what
        `forward_backward` refuses, arrays that do not fit the episode, or a missing reference that
        beta needs; BackendError without an adapter.
        """
        ...

    def together(self) -> AbstractContextManager[None]:
        """Compute this rank's share of a call in the block, which all ranks enter.

        Of a sharded model, a rank that is done takes part in the others' passes until all are.
        Raise OtherRankFailed there where another rank raised, and LostStep where one
        failed within such a pass, which ends the run. Elsewhere it does nothing.
        """
        ...

    def sum_gradients(self) -> None:
        """Add up what all ranks of the library's group have accumulated; each then has the sum.

        A rank without a gradient adds 0. If none has one, nothing changes.
        """
        ...

    def optim_step(self, lr: float, optimizer: AdamW) -> Metrics:
        """Clip, update the adapter, clear the gradients.

        Return `grad_norm` (before clipping), `adapter_norm` (Frobenius norm of all alpha / rank * B
        @ A after the update) and `unreached`, the number of modules whose B got no gradient. Raise
        BackendError, and change nothing, when the gradient norm is not finite or no gradient was
        accumulated.
        """
        ...

    def state(self) -> TrainState:
        """Return adapter and optimizer as arrays, exact copies."""
        ...

    def restore(self, state: TrainState) -> None:
        """Put `state` in place, and drop accumulated gradients.

        Raise BackendError, and change nothing, when names or shapes do not fit. Before the first
        step there are no moments.
        """
        ...

    def memory(self) -> Memory:
        """Return the bytes in use, at the peak, in total and free at first on the device."""
        ...

    def close(self) -> None:
        """Free the model. Further calls are undefined."""
        ...


class Load(Protocol):
    """The entry point that each backend package exports in the group `offapi.backends`."""

    def __call__(self, spec: ModelSpec) -> Backend: ...


def available() -> tuple[str, ...]:
    """Return the names of the registered backends (their libraries may still be missing)."""
    return tuple(sorted({entry.name for entry in entry_points(group="offapi.backends")}))


def default_backend() -> str:
    """Return `mlx` on Apple Silicon and `torch` elsewhere.

    If only the other one is installed, return that.
    """
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    first, second = ("mlx", "torch") if apple else ("torch", "mlx")
    return second if find_spec(first) is None and find_spec(second) is not None else first


def find(name: str) -> Load:
    """Return the loader of backend `name`; raise BackendError if it or its library is missing."""
    entries = {entry.name: entry for entry in entry_points(group="offapi.backends")}
    if name not in entries:
        raise BackendError(f"unknown backend {name!r}.", next_step=nearest(name, entries))
    # Resume promises byte equality, but MKL's last bit depends on an array's place in memory.
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    try:
        start: Load = entries[name].load()
    except ImportError as error:
        raise BackendError(
            f"backend {name!r} cannot be used here: {error}.",
            next_step=(
                f"Run `pip install '.[{name}]'` in offapi's checkout, or choose another --backend."
            ),
        ) from error
    return start


def require_installed(name: str) -> None:
    """Raise what `find` raises for a backend that is unknown or not installed; import nothing."""
    if name not in available() or find_spec(name) is None:
        find(name)


def resolve_dtype(dtype: DType, name: str, device: str = "auto") -> DType:
    """Return `dtype`, or for `auto` bfloat16 where backend `name` computes on a GPU, else float32.

    The module that defines a backend's loader says so, in `prefers_bfloat16`.
    """
    if dtype != "auto":
        return dtype
    home = sys.modules[find(name).__module__]
    return "bfloat16" if home.prefers_bfloat16(device) else "float32"


def load(name: str, spec: ModelSpec) -> Backend:
    """Load `spec` with the backend `name`; raise what `find` and the backend raise.

    An `auto` dtype is resolved, an `auto` implementation is the one that `models add` recorded, and
    the activation bytes are filled in where the model's sizes can be read. Raise ModelError for a
    model that the backend was measured not to compute.
    """
    start = find(name)
    asked: DType = "float32" if spec.full and spec.dtype == "auto" else spec.dtype
    spec = replace(spec, dtype=resolve_dtype(asked, name, spec.device))
    if spec.implementation == "auto":
        spec = replace(spec, implementation=choose_implementation(spec.path, name))
    if spec.activation_bytes is None:
        with suppress(OSError, ValueError, KeyError, TypeError):  # the backend reports a bad folder
            size = activation_bytes(spec.path, name, spec.dtype)
            spec = replace(spec, activation_bytes=size)
    return start(spec)
