"""How completions are sampled from a model, and the completions of each prompt.

Left out: the sampling itself, which is a backend's rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from offapi.config.bounds import AT_LEAST_0, AT_LEAST_1, Bound, require
from offapi.episodes import SamplingMask, check_tokens
from offapi.text.display import plural

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn; temperature 0 is greedy.

    Truncation is applied after the temperature, in the order top_k, top_p, min_p, and the rest is
    renormalised; behaviour logprobs are those of that distribution. top_k and min_p keep all ties
    at their edge. top_p takes tokens by probability, equal ones by id, until their sum reaches it.
    A row's constraint comes first: what it forbids has probability 0 before the temperature.
    `seed` and `step` key the uniforms (see `offapi.randomness.uniforms`).
    """

    max_tokens: int
    stop_ids: tuple[int, ...]
    temperature: float = 0.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    step: int = 0
    signals: bool = False  # whether completions say how sure the model was of each token
    top_logprobs: int = 0  # the likeliest tokens that an engine tells of beside each one drawn

    def __post_init__(self) -> None:
        share: Bound = (lambda p: 0 < p <= 1, "above 0 and at most 1")
        quantile: Bound = (lambda p: 0 <= p <= 1, "from 0 to 1")
        require(self, {"max_tokens": AT_LEAST_1, "top_p": share, "min_p": quantile})
        require(self, dict.fromkeys(("temperature", "top_k", "top_logprobs"), AT_LEAST_0))

    def finish(self, tokens: Sequence[int]) -> Finish | None:
        """Return why the last of `tokens` ends their completion, or None if it does not."""
        if tokens[-1] in self.stop_ids:
            return "stop"
        return "length" if len(tokens) >= self.max_tokens else None

    @property
    def nucleus_parts(self) -> int:
        """top_p in parts of 2^-30: backends compare whole numbers, whose sums no order changes."""
        return max(1, int(self.top_p * 2**30))

    @property
    def truncated(self) -> bool:
        """Whether top_k, top_p or min_p keeps some tokens from being drawn."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0)


@dataclass(frozen=True)
class Completion:
    """One sampled continuation. `tokens` ends with the stop token where finish is "stop"."""

    tokens: tuple[int, ...]
    # nats, under the distribution that was sampled from; as many as tokens
    logprobs: tuple[float, ...]
    finish: Finish
    sampling_mask: SamplingMask | None = None  # only of truncated or constrained sampling
    # With `Sampling.signals`, one per token, in nats: its logprob under the model's own
    # distribution (temperature 1, nothing forbidden), and that less the likeliest other token's.
    free_logprobs: tuple[float, ...] | None = None
    margins: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Group:
    """All completions of one prompt, whose index in the call is `prompt`."""

    prompt: int
    completions: tuple[Completion, ...]


def check_rollout(
    prompts: Sequence[Sequence[int]],
    n: int,
    keys: Sequence[int] | None,
    vocabulary: int,
    starts: Sequence[object] | None = None,
) -> None:
    """Raise ValueError for what `Backend.rollout` refuses."""
    if n < 1:
        raise ValueError(f"a group must have at least one completion, got n = {n}")
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("a prompt must have at least one token, got an empty one")
    for index, prompt in enumerate(prompts):
        check_tokens(prompt, vocabulary, f"prompt {index}")
    for name, one, given in (("keys", "key", keys), ("starts", "entry", starts)):
        if given is not None and len(given) != len(prompts):
            raise ValueError(
                f"`{name}` must have one {one} per prompt, got {len(given)} for"
                f" {plural(len(prompts), 'prompt')}"
            )
