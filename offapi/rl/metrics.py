"""What every step of GRPO logs, under TRL's names.

Left out: seconds, which would differ between two equal runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from offapi.episodes import Floats
from offapi.policy_loss import Experience, Update
from offapi.rl.rollouts import RolloutGroup, Sampled


def of_rollouts(sampled: Sampled) -> dict[str, float]:
    """Rewards, each check's mean (those that audit apart),
    groups without signal, lengths, entropy (nats a token).

    The sampling's entropy is the mean of -log p over the sampled tokens, its unbiased estimate
    under the distribution sampled from; 0 where recorded traces do not tell.
    """
    rollouts = [one for group in sampled.groups for one in group.rollouts]
    lengths = [len(one.completion.tokens) for one in rollouts]
    drawn = [logprob for one in rollouts for logprob in one.completion.logprobs]
    rewards = [one.reward for one in rollouts if one.reward is not None]
    spread = [_std(group) for group in sampled.groups]
    return {
        "reward": fmean(rewards) if rewards else 0.0,
        "reward_std": fmean(spread),
        "frac_reward_zero_std": fmean(group.flat for group in sampled.groups),
        **_means("rewards/{}/mean", [one.judged.rewarded for one in rollouts]),
        **_means("audit/{}/mean", [{**one.judged.audit, **one.judged.fields} for one in rollouts]),
        "rewards/none": float(len(rollouts) - len(rewards)),
        "resampled_prompts": float(sampled.resampled),
        "entropy": -fmean(drawn) if drawn else 0.0,
        "completions/mean_length": fmean(lengths),
        "completions/min_length": float(min(lengths)),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": fmean(one.completion.finish == "length" for one in rollouts),
    }


def of_policy(
    batch: Sequence[Experience], logprobs: Sequence[Floats | None] = ()
) -> dict[str, float]:
    """KL(pi || reference), estimated by k3 (Schulman): mean
    over the tokens of exp(d) - d - 1, d = log ref - log pi.

    pi's are the policy's own `logprobs` where they were computed, else those it was sampled with.
    """
    own = [*logprobs, *[None] * (len(batch) - len(logprobs))]
    apart = []
    for one, computed_T in zip(batch, own, strict=True):
        pi_T = one.episode.behaviour if computed_T is None else computed_T
        if one.reference is not None and pi_T is not None:
            apart.append((one.reference - pi_T).astype(np.float64))
    if not apart:
        return {"kl": 0.0}
    d_T = np.concatenate(apart)
    return {"kl": float((np.exp(d_T) - d_T - 1).mean())}


def of_update(batch: Sequence[Experience], update: Update, inner: int) -> dict[str, float]:
    """An inner update's metrics; of the first also how
    far sampler and trainer lie apart on the same weights.
    """
    if inner:
        return dict(update.metrics)
    apart_T = _apart(batch, update.logprobs)
    return {
        **update.metrics,
        **of_policy(batch, update.logprobs),  # offline the sampler was another policy
        "sampling/sampling_logp_difference/mean": float(apart_T.mean()) if len(apart_T) else 0.0,
        "sampling/sampling_logp_difference/max": float(apart_T.max()) if len(apart_T) else 0.0,
    }


def _apart(batch: Sequence[Experience], logprobs: Sequence[Floats | None]) -> Floats:
    """|log p of the sampler - log p of the trainer| of every token that was computed."""
    found = [
        np.abs(own_T - one.episode.behaviour)
        for one, own_T in zip(batch, logprobs, strict=True)
        if own_T is not None and one.episode.behaviour is not None
    ]
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _std(group: RolloutGroup) -> float:
    """Bessel's, 0 below two rewards."""
    rewards_G = group.rewards_G
    return float(np.std(rewards_G, ddof=1)) if len(rewards_G) > 1 else 0.0


def _means(name: str, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {each: None for one in scores for each in one}
    return {name.format(each): fmean(one[each] for one in scores if each in one) for each in names}
