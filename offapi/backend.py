"""The seam: what a recipe may ask of a backend, and the values that cross.

Tokens in, tokens out. A backend never sees text, documents or what a reward means; a
recipe never sees a tensor. NumPy arrays and frozen dataclasses cross, nothing else.
Left out: files. A backend hands its state over as arrays; `offapi.adapter` and
`offapi.training.run` write them, so both backends share one set of formats.

Shape suffixes: `_P` prompts, `_G` completions of a group, `_T` tokens, `_V` vocabulary.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from offapi.activation_memory import activation_bytes
from offapi.completions import Completion as Completion
from offapi.completions import Finish as Finish
from offapi.completions import Group as Group
from offapi.completions import Sampling as Sampling
from offapi.config.bounds import ABOVE_0, AT_LEAST_0, AT_LEAST_1, Bound, require
from offapi.episodes import Episode, Floats, Metrics
from offapi.errors import BackendError, nearest
from offapi.policy_loss import Experience, PolicyLoss, Rule, Update

Arrays = Mapping[str, Floats]
DType = Literal["float32", "bfloat16"]
By = Literal["policy", "reference"]

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoraSpec:
    """Shape of a low-rank adapter (arXiv 2106.09685): W + (alpha / rank) * B @ A.

    PEFT's convention of the scale. mlx-lm's own `scale` is this alpha / rank.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = LINEARS

    def __post_init__(self) -> None:
        require(self, {"rank": AT_LEAST_1, "alpha": ABOVE_0})

    @property
    def scale(self) -> float:
        """alpha / rank, the factor of B @ A."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class Limits:
    """How much a backend holds at once. None of them changes a result beyond float order."""

    # of one micro-batch, shared prefix included once; None: what suits the device
    train_tokens: int | None = None
    logit_rows: int = 256  # rows of the vocabulary-wide head computed at a time
    rollout_rows: int = 64  # completions decoded side by side

    def __post_init__(self) -> None:
        require(self, dict.fromkeys(("train_tokens", "logit_rows", "rollout_rows"), AT_LEAST_1))

    @property
    def micro_batch(self) -> int:
        """Tokens of one micro-batch: `train_tokens`, or 2048."""
        return 2048 if self.train_tokens is None else self.train_tokens


@dataclass(frozen=True)
class ModelSpec:
    """What to load: a model folder, an adapter on it, and the numbers to compute in.

    `adapter` is a PEFT folder. With `lora` a fresh adapter is drawn from `seed`; with
    both, `adapter` is continued and must have that shape. `train=False` loads for
    inference alone. `quantize` asks for a base in that many bits (MLX only).
    """

    path: Path
    adapter: Path | None = None
    lora: LoraSpec | None = None
    dtype: DType = "float32"
    device: str = "auto"  # torch: auto, cpu, cuda, cuda:1; mlx: auto, cpu, gpu
    quantize: int | None = None  # bits
    seed: int = 0
    limits: Limits = Limits()
    activation_bytes: float | None = None  # of a training token at its peak; `load` fills it in


@dataclass(frozen=True)
class AdamW:
    """Decoupled weight decay Adam (arXiv 1711.05101),
    bias-corrected, after global-norm clipping.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0  # clip to min(1, max / (norm + 1e-6)); 0: off

    def __post_init__(self) -> None:
        decay: Bound = (lambda beta: 0 <= beta < 1, "0 or more and below 1")
        require(self, {"beta1": decay, "beta2": decay, "eps": ABOVE_0})
        require(self, dict.fromkeys(("weight_decay", "max_grad_norm"), AT_LEAST_0))


@dataclass(frozen=True)
class TrainState:
    """Everything exact resume needs. Keys are PEFT's parameter names, arrays fp32.

    `lora_A.weight` has shape (rank, in), `lora_B.weight` (out, rank).
    """

    adapter: Arrays
    exp_avg: Arrays = field(default_factory=dict)
    exp_avg_sq: Arrays = field(default_factory=dict)
    step: int = 0  # optimizer steps taken


@dataclass(frozen=True)
class Memory:
    """Bytes: held now, the peak since load, and what the device has."""

    used: int
    peak: int
    total: int


class Backend(Protocol):
    """One loaded model. Both backends implement exactly this and pass one conformance suite."""

    name: str
    device: str

    @property
    def limits(self) -> Limits:
        """How much it holds at once: as asked for, or as suits the device."""
        ...

    @property
    def prefilled_tokens(self) -> int:
        """Prompt tokens run through the model by `rollout`
        since load: what sharing prefixes saves shows here.
        """
        ...

    def rollout(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        sampling: Sampling,
        keys: Sequence[int] | None = None,
    ) -> Iterator[Group]:
        """Yield one group of `n` completions for each prompt, as groups finish (any order).

        The longest common prefix of all prompts is prefilled once a call, each prompt once a
        group; finished rows leave the batch and waiting ones take their place. `keys` name
        the prompts in the random stream (default: their index), so that a row draws the
        same tokens whatever it is batched with. Raises ValueError, at the call, for an empty
        prompt, a token the model does not know, an `n` below 1, or keys that are not one a prompt.
        """
        ...

    def score(
        self, episodes: Sequence[Episode], by: By = "policy", temperature: float = 1.0
    ) -> list[Floats]:
        """Logprobs (nats) of the tokens in each episode's mask, shape (mask.sum(),), fp32.

        `by="reference"` scores with the adapter that was loaded, or with none where it was
        drawn fresh. An episode with a sampling mask is scored over its sets. Raises ValueError
        where position 0, which has no context, is masked, a sampling mask does not fit its
        tokens, the model does not know a token, or the temperature is not above 0.
        """
        ...

    def forward_backward(self, batch: Sequence[Episode]) -> Metrics:
        """Add the gradient of the cross-entropy over the whole batch; the same for any
        micro-batch split: -(sum of masked logprobs) / (masked tokens of the batch), in nats.

        Returns `loss` and `tokens` (masked). Raises ValueError for an empty batch, an episode
        without masked tokens or one that `score` refuses; BackendError without an adapter.
        """
        ...

    def advantages(self, rewards: Sequence[Sequence[float]], rule: Rule) -> list[Floats]:
        """The advantages of each group of `rewards` under
        `rule`, shape (G,) each; groups may differ in size.

        Exactly 0 throughout a group whose rewards are all equal. Raises ValueError for a
        reward that is not finite, an empty group, no group at all, or an unknown rule.
        """
        ...

    def policy_gradient(self, batch: Sequence[Experience], loss: PolicyLoss) -> Update:
        """Add the gradient of `loss` over the whole batch; the same for any micro-batch split.

        Experiences of one prompt share its keys and values in the graph. One that cannot contribute
        (advantage 0, and beta 0) is counted by the normaliser and not computed.
        Metrics: `loss`; `tokens` computed; `ratio/mean`, `ratio/max`; and the share of tokens (of
        sequences, for a ratio of sequences) clipped, `clip_ratio/low_mean`, `clip_ratio/high_mean`.
        Raises ValueError for what `forward_backward` refuses, arrays that do not fit the episode,
        or a reference that beta needs and lacks; BackendError without an adapter.
        """
        ...

    def optim_step(self, lr: float, optimizer: AdamW) -> Metrics:
        """Clip, update the adapter, clear the gradients.

        Returns `grad_norm` (before clipping), `adapter_norm` (Frobenius norm of all alpha / rank *
        B @ A after the update) and `unreached`, the number of modules whose B got no gradient.

        Raises BackendError, and changes nothing, when the gradient norm is not finite or
        no gradient was accumulated.
        """
        ...

    def state(self) -> TrainState:
        """Adapter and optimizer as arrays, exact copies."""
        ...

    def restore(self, state: TrainState) -> None:
        """Take `state` over, and drop gradients.

        Raises BackendError, and changes nothing, when names or shapes do not fit. Before the first
        step there are no moments.
        """
        ...

    def memory(self) -> Memory:
        """Bytes used, peak and available on the device."""
        ...

    def close(self) -> None:
        """Free the model. Further calls are undefined."""
        ...


class Load(Protocol):
    """The entry point each backend package exports in the group `offapi.backends`."""

    def __call__(self, spec: ModelSpec) -> Backend: ...


def available() -> tuple[str, ...]:
    """Names of the backends that are registered (their libraries may still be missing)."""
    return tuple(sorted({entry.name for entry in entry_points(group="offapi.backends")}))


def default_backend() -> str:
    """mlx on Apple Silicon, torch elsewhere; the
    other where that one's library is not installed.
    """
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    first, second = ("mlx", "torch") if apple else ("torch", "mlx")
    return second if find_spec(first) is None and find_spec(second) is not None else first


def find(name: str) -> Load:
    """The loader of the backend called `name`; BackendError
    when there is none, or its library is missing.
    """
    found = {entry.name: entry for entry in entry_points(group="offapi.backends")}
    if name not in found:
        raise BackendError(f"unknown backend {name!r}.", next_step=nearest(name, found))
    # MKL's last bit otherwise depends on where in memory
    # an array lies; resume promises byte equality.
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    try:
        start: Load = found[name].load()
    except ImportError as error:
        raise BackendError(
            f"backend {name!r} is not usable here: {error}.",
            next_step=(
                f"Run `pip install '.[{name}]'` in offapi's checkout, or choose another --backend."
            ),
        ) from error
    return start


def load(name: str, spec: ModelSpec) -> Backend:
    """Load `spec` with the backend called `name`, its activation bytes filled in where the model's
    sizes can be read; raises what `find` and the backend raise.
    """
    start = find(name)
    if spec.activation_bytes is None:
        with suppress(OSError, ValueError, KeyError):  # what is wrong with a folder, a backend says
            figure = activation_bytes(spec.path, name, spec.dtype)
            spec = replace(spec, activation_bytes=figure)
    return start(spec)
