"""What GRPO and its relatives optimise: the table of rules, their knobs, and a sampled experience.

Backends compute advantages and losses on the device; this module defines what they compute. Array
names carry the shape suffixes that `offapi.backend` lists. Left out: rules with a value model, and
losses over whole distributions.
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
from offapi.text.display import plural

Rule = Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "maxrl"]
NO_MEAN = 1e-12  # a mean reward nearer to 0 gives maxrl no signal
STD_EPS = 1e-4  # added to a group's standard deviation (Bessel's), as TRL does


@dataclass(frozen=True)
class Shape:
    """How a rule turns a group's rewards r and the ratios rho = pi / pi_old into a loss.

    `advantage`: std (r - mean) / (std + 1e-4); centred r - mean; leave_one_out r minus the mean of
    the others; mean (r - mean) / mean. A group whose rewards are all equal has advantages of
    exactly 0.

    `ratio`: of a token; or of its sequence, exp of the mean or the sum of the tokens' log-ratios.

    `clipped`: if True, min(rho A, clip(rho, 1 - low, 1 + high) A); if False, min(rho, 1 + high) is
    a constant factor of A log pi (CISPO).

    `aggregation`: the mean over sequences of the mean over their tokens; the mean over all tokens
    of the batch; or the sum over B times the longest completion allowed.
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
    # arXiv 2507.18071, equations 5 to 7
    "gspo": Shape("std", "sequence_mean", True, "sequence", 3e-4, 4e-4),
    # arXiv 2506.13585, equations 4 and 5
    "cispo": Shape("std", "token", False, "token", 1.0, 0.28),
    "rloo": Shape("leave_one_out", "sequence_sum", True, "sequence", 0.2, 0.2),  # arXiv 2402.14740
    "maxrl": Shape("mean", "token", True, "token", 0.2, 0.2),  # arXiv 2602.02710
}


def shape_of(rule: Rule) -> Shape:
    """Return the rule's row of the table; raise ValueError for an unknown rule."""
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}. {nearest(rule, RULES)}")
    return RULES[rule]


@dataclass(frozen=True)
class PolicyLoss:
    """A rule and its knobs, by the papers' names; None takes the rule's own value.

    dr_grpo is the default. Dividing by the group's standard deviation lets a trifling difference
    weigh as much as right against wrong, and averaging inside each completion favours long wrong
    answers. dr_grpo does neither, and AdamW is indifferent to the scale of the loss.
    """

    rule: Rule = "dr_grpo"
    epsilon: float | None = None
    epsilon_high: float | None = None
    # weight of the KL to the reference, also in steps without a signal; at 0 it is only measured
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
                f"epsilon has no effect with {self.rule}, which bounds ratios only from above; set"
                " epsilon_high instead"
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
        """How far above 1 a ratio may go: epsilon_high, or the rule's own value.

        With only epsilon given, a rule with equal bounds takes epsilon for both.
        """
        symmetric = self.shape.low == self.shape.high
        given = self.epsilon if symmetric and self.epsilon_high is None else self.epsilon_high
        return self.shape.high if given is None else given


@dataclass(frozen=True, eq=False)
class Experience:
    """A sampled episode with its advantage.

    Arrays have one number per masked token, shape (T,), logprobs in nats. The episode's sampled
    segments carry the behaviour logprobs. `old` are this backend's own logprobs before the first
    inner update; None means that this is the first, so the ratio is 1.
    """

    episode: Episode
    advantage: float
    old: Floats | None = None
    reference: Floats | None = None  # needed where beta > 0
    by_token: Floats | None = None  # its tokens' own advantages, in place of `advantage`

    @property
    def signal(self) -> bool:
        """Whether an advantage is other than 0."""
        return bool(self.advantage if self.by_token is None else self.by_token.any())


@dataclass(frozen=True, eq=False)
class Update:
    """What `Backend.policy_gradient` returns.

    `logprobs` has an array (T,) for each experience, or None if it was not computed.
    """

    metrics: Metrics
    logprobs: tuple[Floats | None, ...]


def check_experiences(batch: Sequence[Experience], loss: PolicyLoss, vocabulary: int) -> None:
    """Raise ValueError, naming the episode, for an experience that cannot be learned from.

    That is, if `check_learnable` refuses the episode, an array does not fit its mask, beta needs a
    reference that is missing, or tokens have advantages of their own under a rule whose ratio is
    the sequence's.
    """
    check_learnable([experience.episode for experience in batch], vocabulary)
    for experience in batch:
        episode = experience.episode
        tokens = sum(episode.mask)
        if loss.beta > 0 and experience.reference is None:
            raise ValueError(
                f"episode {episode.id!r} has no reference logprobs; beta {loss.beta:g} needs them"
            )
        if experience.by_token is not None and loss.shape.ratio != "token":
            raise ValueError(
                f"episode {episode.id!r} has an advantage for each token, and {loss.rule} has one"
                " ratio for a sequence"
            )
        arrays = {
            "behaviour logprobs": episode.behaviour,
            "old logprobs": experience.old,
            "reference logprobs": experience.reference,
            "advantages": experience.by_token,
        }
        for kind, numbers_T in arrays.items():
            if numbers_T is not None and numbers_T.shape != (tokens,):
                raise ValueError(
                    f"episode {episode.id!r} has {plural(tokens, 'masked token')}, so its {kind}"
                    f" must have shape ({tokens},), got {numbers_T.shape}"
                )


def contributes(experience: Experience, loss: PolicyLoss) -> bool:
    """Whether an experience's term of the loss can be other than exactly 0."""
    return experience.signal or loss.beta > 0


def advantages_of(batch: Sequence[Experience], counts: Sequence[int], loss: PolicyLoss) -> Floats:
    """Return the advantages that multiply the ratios of `batch`, end to end, shape (U,).

    `counts` are the experiences' masked tokens. Where a ratio is a token's, each token has one.
    """
    own = np.array([experience.advantage for experience in batch], np.float32)
    if loss.shape.ratio != "token":
        return own
    parts = [
        np.repeat(one, count) if experience.by_token is None else experience.by_token
        for one, count, experience in zip(own, counts, batch, strict=True)
    ]
    return np.concatenate(parts)


def pad_rewards(
    rewards: Sequence[Sequence[float]],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the rewards as a rectangle (P, G), 0 in padding, and which places are real.

    Raise ValueError for a reward that is not finite, an empty group, or no group at all.
    """
    sizes_P = np.array([len(group) for group in rewards])
    if not sizes_P.all() or not len(sizes_P):
        raise ValueError("there must be at least one group, and each must have at least one reward")
    real_PG = np.arange(sizes_P.max()) < sizes_P[:, None]
    rewards_PG = np.zeros(real_PG.shape, np.float64)
    rewards_PG[real_PG] = [reward for group in rewards for reward in group]
    if not np.isfinite(rewards_PG).all():
        group, place = np.argwhere(~np.isfinite(rewards_PG))[0]
        raise ValueError(
            f"rewards must be finite, got {rewards_PG[group, place]} for completion {place} of"
            f" group {group}"
        )
    return rewards_PG, real_PG


def ratio_metrics(parts: Sequence[NDArray[np.floating]]) -> Metrics:
    """Return a batch's metrics from the statistics (5,) of its micro-batches.

    The five are the sum of the ratios, the largest, the numbers clipped low and high, and the
    number of ratios.
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
