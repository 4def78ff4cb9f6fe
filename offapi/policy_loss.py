"""What GRPO and its relatives optimise: the rules as a
table, their knobs, and what a sampled episode brings along.

Advantages and losses are computed in the backends, on the device; this module says what they
compute. Left out: rules with a value model, and losses over whole distributions.

Shape suffixes: `_P` prompts, `_G` completions of a group, `_T` completion tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from offapi.config.bounds import ABOVE_0, AT_LEAST_0, AT_LEAST_1, require
from offapi.episodes import Episode, Floats, Metrics, check_learnable
from offapi.errors import nearest

Rule = Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "maxrl"]
NO_MEAN = 1e-12  # a mean reward nearer to 0 gives maxrl no signal
STD_EPS = 1e-4  # added to a group's standard deviation (Bessel's), as TRL does


@dataclass(frozen=True)
class Shape:
    """How a rule turns a group's rewards r and the ratios rho = pi / pi_old into a loss.

    `advantage`: std (r - mean) / (std + 1e-4); centred r - mean; leave_one_out r minus the mean of
    the others; mean (r - mean) / mean. A group whose rewards are all equal has advantages of
    exactly 0.
    `ratio`: of a token; or of its sequence, exp of the tokens' mean or summed log-ratio.
    `clipped`: min(rho A, clip(rho, 1 - low, 1 + high) A); or else min(rho, 1 + high) as a constant
    factor of A log pi (CISPO). `aggregation`: mean over sequences of the mean over their tokens;
    mean over all tokens of the batch; or the sum over B times the longest completion allowed.
    """

    advantage: Literal["std", "centred", "leave_one_out", "mean"]
    ratio: Literal["token", "sequence_mean", "sequence_sum"]
    clipped: bool
    aggregation: Literal["sequence", "token", "length"]
    low: float  # epsilon
    high: float  # epsilon_high


RULES: Mapping[Rule, Shape] = {
    "grpo": Shape("std", "token", True, "sequence", 0.2, 0.2),  # arXiv 2402.03300, equation 3
    "dr_grpo": Shape("centred", "token", True, "length", 0.2, 0.2),  # arXiv 2503.20783, section 3.2
    "dapo": Shape("std", "token", True, "token", 0.2, 0.28),  # arXiv 2503.14476, equation 8
    "gspo": Shape(
        "std", "sequence_mean", True, "sequence", 3e-4, 4e-4
    ),  # arXiv 2507.18071, equations 5 to 7
    "cispo": Shape(
        "std", "token", False, "token", 1.0, 0.28
    ),  # arXiv 2506.13585, equations 4 and 5
    "rloo": Shape("leave_one_out", "sequence_sum", True, "sequence", 0.2, 0.2),  # arXiv 2402.14740
    "maxrl": Shape("mean", "token", True, "token", 0.2, 0.2),  # arXiv 2602.02710
}


def shape_of(rule: Rule) -> Shape:
    """The rule's row of the table. Raises ValueError for an unknown rule."""
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}. {nearest(rule, RULES)}")
    return RULES[rule]


@dataclass(frozen=True)
class PolicyLoss:
    """A rule and its knobs, by the papers' names. None takes the rule's own value.

    dr_grpo is the default: dividing by the group's standard deviation makes a trifle between two
    answers weigh as much as right against wrong, and averaging inside each completion favours
    long wrong answers; it does neither, and AdamW does not care for the scale it leaves.
    """

    rule: Rule = "dr_grpo"
    epsilon: float | None = None
    epsilon_high: float | None = None
    # of the KL to the reference, in steps without a signal too; at 0 it is measured alone
    beta: float = 0.0
    # both have the gradient of KL(pi || reference): arXiv 2512.21852
    kl: Literal["ratio_k3", "k2"] = "ratio_k3"
    # truncated importance sampling: a token's weight is min(pi_old / behaviour, cap); 0: off
    tis_cap: float = 2.0
    temperature: float = 1.0  # of the sampling, at which logprobs are taken
    max_tokens: int = 1  # longest completion allowed: the constant that dr_grpo divides by

    def __post_init__(self) -> None:
        require(self, dict.fromkeys(("epsilon", "epsilon_high", "beta", "tis_cap"), AT_LEAST_0))
        require(self, {"temperature": ABOVE_0, "max_tokens": AT_LEAST_1})
        shape_of(self.rule)
        if self.epsilon is not None and not self.shape.clipped:
            raise ValueError(
                f"epsilon has no effect with {self.rule}, which bounds ratios from above alone"
                " (epsilon_high)"
            )

    @property
    def shape(self) -> Shape:
        """The rule's row of the table."""
        return shape_of(self.rule)

    @property
    def low(self) -> float:
        """How far below 1 a ratio may go."""
        return self.shape.low if self.epsilon is None else self.epsilon

    @property
    def high(self) -> float:
        """How far above 1 a ratio may go: epsilon_high,
        epsilon where that alone is given, the rule's own else.
        """
        symmetric = self.shape.low == self.shape.high
        given = self.epsilon if symmetric and self.epsilon_high is None else self.epsilon_high
        return self.shape.high if given is None else given


@dataclass(frozen=True, eq=False)
class Experience:
    """A sampled episode with what its reward made of it.
    Arrays are one number a masked token, nats, shape (T,).

    The episode's sampled segments carry the behaviour logprobs. `old` are this backend's own
    logprobs before the first inner update; None says that this is the first, and the ratio is 1.
    """

    episode: Episode
    advantage: float
    old: Floats | None = None
    reference: Floats | None = None  # needed where beta > 0


@dataclass(frozen=True, eq=False)
class Update:
    """What `Backend.policy_gradient` found.

    `logprobs` (T,) of each experience, None where it was not computed.
    """

    metrics: Metrics
    logprobs: tuple[Floats | None, ...]


def check_experiences(batch: Sequence[Experience], loss: PolicyLoss, vocabulary: int) -> None:
    """ValueError, naming the episode, for one that cannot be learned from, arrays that do not
    fit its mask, or a reference that beta needs and lacks.
    """
    check_learnable([one.episode for one in batch], vocabulary)
    for one in batch:
        name, tokens = one.episode.id, sum(one.episode.mask)
        if loss.beta > 0 and one.reference is None:
            raise ValueError(
                f"episode {name!r} has no reference logprobs, which beta {loss.beta:g} needs"
            )
        arrays = {"behaviour": one.episode.behaviour, "old": one.old, "reference": one.reference}
        for kind, array in arrays.items():
            if array is not None and array.shape != (tokens,):
                what = (
                    f"episode {name!r} has {tokens} masked tokens and {kind} logprobs of shape"
                    f" {array.shape}"
                )
                raise ValueError(what)


def contributes(one: Experience, loss: PolicyLoss) -> bool:
    """Whether the summand of an experience can be other than exactly 0."""
    return one.advantage != 0 or loss.beta > 0


def pad_rewards(
    rewards: Sequence[Sequence[float]],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Rewards as one rectangle (P, G), 0 where a group has fewer, and which places are real.

    Raises ValueError for a reward that is not finite, an empty group, or no group at all.
    """
    sizes_P = np.array([len(group) for group in rewards])
    if not sizes_P.all() or not len(sizes_P):
        raise ValueError("every group needs at least one reward, and there must be a group")
    real_PG = np.arange(sizes_P.max()) < sizes_P[:, None]
    rewards_PG = np.zeros(real_PG.shape, np.float64)
    rewards_PG[real_PG] = [reward for group in rewards for reward in group]
    if not np.isfinite(rewards_PG).all():
        group, place = np.argwhere(~np.isfinite(rewards_PG))[0]
        raise ValueError(
            f"the reward {rewards_PG[group, place]} of completion {place} in group {group} is not"
            " finite"
        )
    return rewards_PG, real_PG


def ratio_metrics(parts: Sequence[NDArray[np.floating]]) -> Metrics:
    """Metrics of a batch from the statistics (5,) of its micro-batches: the sum of the ratios, the
    largest, how many were clipped low and high, and how many there are.
    """
    if not parts:
        parts = [np.array([1.0, 1.0, 0.0, 0.0, 1.0])]
    statistics = np.array(parts, np.float64)
    total, _, low, high, count = statistics.sum(axis=0)
    return {
        "ratio/mean": float(total / count),
        "ratio/max": float(statistics[:, 1].max()),
        "clip_ratio/low_mean": float(low / count),
        "clip_ratio/high_mean": float(high / count),
    }
