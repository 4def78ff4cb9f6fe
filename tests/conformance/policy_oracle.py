"""Advantages and losses of GRPO and its relatives in NumPy, float64, each written from its paper.

Gradients are complex steps (Squire and Trapp, SIAM Review 1998): exact to the last bits, and a
stop-gradient is the real part. Nothing here is shared with the table of `offapi.policy_loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # float64, or complex128 while a gradient is taken
STEP = 1e-30


# Advantages of one group


def by_standard_deviation(rewards: Sequence[float]) -> Array:
    """(r - mean) / (std + 1e-4) with Bessel's std (arXiv 2402.03300, section 4.1.2).

    The epsilon is TRL's.
    """
    r = np.asarray(rewards, np.float64)
    if len(r) < 2 or (r == r[0]).all():
        return np.zeros(len(r))
    mean = sum(r) / len(r)
    return np.array((r - mean) / (np.sqrt(sum((r - mean) ** 2) / (len(r) - 1)) + 1e-4))


def by_mean(rewards: Sequence[float]) -> Array:
    """r - mean (arXiv 2503.20783, section 3.2)."""
    r = np.asarray(rewards, np.float64)
    return np.zeros(len(r)) if (r == r[0]).all() else r - sum(r) / len(r)


def by_the_others(rewards: Sequence[float]) -> Array:
    """r minus the mean of the group's other rewards (arXiv 2402.14740, section 2.3)."""
    r = list(rewards)
    if len(set(r)) == 1:
        return np.zeros(len(r))
    return np.array([r[i] - sum(r[:i] + r[i + 1 :]) / (len(r) - 1) for i in range(len(r))])


def by_relative_mean(rewards: Sequence[float]) -> Array:
    """(r - mean) / mean, 0 where the mean is 0 (arXiv 2602.02710)."""
    r = np.asarray(rewards, np.float64)
    mean = sum(r) / len(r)
    return np.zeros(len(r)) if abs(mean) < 1e-12 or (r == r[0]).all() else (r - mean) / mean


ADVANTAGES: dict[str, Callable[[Sequence[float]], Array]] = {
    "grpo": by_standard_deviation,
    "dapo": by_standard_deviation,
    "gspo": by_standard_deviation,
    "cispo": by_standard_deviation,
    "dr_grpo": by_mean,
    "rloo": by_the_others,
    "maxrl": by_relative_mean,
}


# Losses of a batch


@dataclass(frozen=True)
class Sample:
    """One sequence: the logprobs (T,) of its tokens by each model, and its advantage."""

    logprobs: Array
    advantage: float | Array  # or (T,), one of each token
    old: Array | None = None
    behaviour: Array | None = None
    reference: Array | None = None

    @property
    def log_ratio(self) -> Array:
        """log pi / pi_old of each token; without `old` the policy is its own."""
        return np.asarray(self.logprobs - (self.logprobs.real if self.old is None else self.old))


@dataclass(frozen=True)
class Extras:
    """What is added to any rule: beta times a KL to the reference, and importance sampling."""

    beta: float = 0.0
    kl: str = "ratio_k3"
    tis_cap: float = 2.0

    def cost(self, sample: Sample, gain: Array) -> Array:
        """Return the loss of each token (T,) from what the rule gains on it."""
        loss = -gain * self.weight(sample)
        if self.beta:
            loss = loss + self.beta * {"ratio_k3": ratio_k3, "k2": k2}[self.kl](sample)
        return loss

    def weight(self, sample: Sample) -> Array:
        """Return min(pi_old / pi_sampler, cap) of each token, a constant."""
        if sample.behaviour is None or not self.tis_cap:
            return np.ones(len(sample.logprobs))
        old = sample.logprobs.real if sample.old is None else sample.old
        return np.asarray(np.minimum(np.exp(old - sample.behaviour), self.tis_cap))


def k2(sample: Sample) -> Array:
    """(log pi_ref - log pi)^2 / 2 (Schulman)."""
    assert sample.reference is not None
    return np.asarray((sample.reference - sample.logprobs) ** 2 / 2)


def ratio_k3(sample: Sample) -> Array:
    """pi / pi_old (pi_ref / pi - log(pi_ref / pi) - 1).

    DeepSeek-V3.2, arXiv 2512.02556, section 3.1.
    """
    assert sample.reference is not None
    d = sample.reference - sample.logprobs
    return np.asarray(np.exp(sample.log_ratio) * (np.exp(d) - d - 1))


def pessimistic(ratio: Array, advantage: float | Array, low: float, high: float) -> Array:
    """min(rho A, clip(rho, 1 - low, 1 + high) A) (arXiv 1707.06347, equation 7)."""
    clipped = np.where(
        ratio.real < 1 - low, 1 - low, np.where(ratio.real > 1 + high, 1 + high, ratio)
    )
    free, held = ratio * advantage, clipped * advantage
    return np.where(free.real <= held.real, free, held)


def grpo(
    batch: Sequence[Sample], extras: Extras, longest: int, low: float = 0.2, high: float = 0.2
) -> Any:
    """1/B sum_i 1/T_i sum_t, ratios of tokens (arXiv 2402.03300, equation 3)."""
    costs = [
        extras.cost(s, pessimistic(np.exp(s.log_ratio), s.advantage, low, high)) for s in batch
    ]
    return sum(cost.sum() / len(cost) for cost in costs) / len(batch)


def dr_grpo(
    batch: Sequence[Sample], extras: Extras, longest: int, low: float = 0.2, high: float = 0.2
) -> Any:
    """1/(B L) sum_i sum_t: a constant instead of each length (arXiv 2503.20783, section 3.2)."""
    costs = [
        extras.cost(s, pessimistic(np.exp(s.log_ratio), s.advantage, low, high)) for s in batch
    ]
    return sum(cost.sum() for cost in costs) / (len(batch) * longest)


def dapo(
    batch: Sequence[Sample], extras: Extras, longest: int, low: float = 0.2, high: float = 0.28
) -> Any:
    """1/N sum over all tokens, clipped higher above (arXiv 2503.14476, equation 8)."""
    costs = [
        extras.cost(s, pessimistic(np.exp(s.log_ratio), s.advantage, low, high)) for s in batch
    ]
    return sum(cost.sum() for cost in costs) / sum(len(cost) for cost in costs)


def gspo(
    batch: Sequence[Sample], extras: Extras, longest: int, low: float = 3e-4, high: float = 4e-4
) -> Any:
    """s_i = exp(mean_t log rho_t), the mean over sequences (arXiv 2507.18071, equations 5 to 7)."""
    total = 0.0
    for s in batch:
        ratio = np.exp(s.log_ratio.sum() / len(s.logprobs))
        total += extras.cost(s, pessimistic(ratio, s.advantage, low, high)).sum() / len(s.logprobs)
    return total / len(batch)


def cispo(
    batch: Sequence[Sample], extras: Extras, longest: int, low: float = 1.0, high: float = 0.28
) -> Any:
    """sg(min(rho, 1 + high)) A log pi, the mean over tokens, without a bound below.

    arXiv 2506.13585, equations 4 and 5.
    """
    costs = []
    for s in batch:
        weight = np.minimum(np.exp(s.log_ratio.real), 1 + high)
        costs.append(extras.cost(s, weight * s.advantage * s.logprobs))
    return sum(cost.sum() for cost in costs) / sum(len(cost) for cost in costs)


def rloo(
    batch: Sequence[Sample], extras: Extras, longest: int, low: float = 0.2, high: float = 0.2
) -> Any:
    """exp(sum_t log rho_t), the sequence as one action, the mean over sequences (arXiv 2402.14740)."""
    total = 0.0
    for s in batch:
        gain = pessimistic(np.exp(s.log_ratio.sum()), s.advantage, low, high)
        total += extras.cost(s, gain).sum() / len(s.logprobs)
    return total / len(batch)


def maxrl(
    batch: Sequence[Sample], extras: Extras, longest: int, low: float = 0.2, high: float = 0.2
) -> Any:
    """Its advantages (arXiv 2602.02710) in the clipped mean over all tokens."""
    costs = [
        extras.cost(s, pessimistic(np.exp(s.log_ratio), s.advantage, low, high)) for s in batch
    ]
    return sum(cost.sum() for cost in costs) / sum(len(cost) for cost in costs)


LOSSES: dict[str, Callable[..., Any]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "dapo": dapo,
    "gspo": gspo,
    "cispo": cispo,
    "rloo": rloo,
    "maxrl": maxrl,
}


def loss(
    batch: Sequence[Sample],
    rule: str = "dr_grpo",
    epsilon: float | None = None,
    epsilon_high: float | None = None,
    max_tokens: int = 1,
    **extras: Any,
) -> Any:
    """Return the loss of a whole batch; an epsilon that is not given is the rule's own."""
    given = {"low": epsilon, "high": epsilon_high}
    clip = {name: value for name, value in given.items() if value is not None}
    return LOSSES[rule](batch, Extras(**extras), max_tokens, **clip)


def gradient(batch: Sequence[Sample], **knobs: Any) -> Array:
    """Return d loss / d logprobs, all sequences end to end, shape (T,)."""
    slopes = []
    for i, sample in enumerate(batch):
        for t in range(len(sample.logprobs)):
            moved = sample.logprobs.astype(np.complex128)
            moved[t] += 1j * STEP
            varied = [*batch[:i], replace(sample, logprobs=moved), *batch[i + 1 :]]
            slopes.append(loss(varied, **knobs).imag / STEP)
    return np.array(slopes)


def statistics(batch: Sequence[Sample], rule: str, low: float, high: float) -> Array:
    """Return the ratios' sum and maximum, how many are clipped below and above, their number; (5,)."""
    found: list[tuple[Any, Any]] = []
    for s in batch:
        if rule == "gspo":
            found.append((float(np.exp(s.log_ratio.mean())), s.advantage))
        elif rule == "rloo":
            found.append((float(np.exp(s.log_ratio.sum())), s.advantage))
        else:
            ratio_T = np.exp(s.log_ratio)
            found += zip(ratio_T, np.broadcast_to(s.advantage, ratio_T.shape), strict=True)
    ratios = [float(ratio) for ratio, _ in found]
    if rule == "cispo":
        below, above = 0, sum(ratio > 1 + high for ratio in ratios)
    else:
        below = sum(ratio < 1 - low and a < 0 for ratio, a in found)
        above = sum(ratio > 1 + high and a > 0 for ratio, a in found)
    return np.array([sum(ratios), max(ratios), below, above, len(ratios)])
