"""The metrics of every GRPO step, under TRL's names.

Left out: seconds, which would differ between two equal runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from offapi.agent.episode import FINISHES, AgentEpisode
from offapi.episodes import Floats
from offapi.policy_loss import Experience, Update
from offapi.rl.rollouts import RolloutGroup, Sampled


def of_rollouts(sampled: Sampled) -> dict[str, float]:
    """Return rewards, each check's mean, groups without signal, lengths and entropy.

    Checks that audit have names of their own. The entropy, in nats a token, is the mean of -log p
    over the sampled tokens: an unbiased estimate under the sampling distribution; 0 where recorded
    traces have no logprobs.
    """
    rollouts = [rollout for group in sampled.groups for rollout in group.rollouts]
    lengths = [len(rollout.completion.tokens) for rollout in rollouts]
    drawn = [logprob for rollout in rollouts for logprob in rollout.completion.logprobs]
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    audits = [{**rollout.judged.audit, **rollout.judged.fields} for rollout in rollouts]
    cut = [rollout.completion.finish == "length" for rollout in rollouts]
    spread = [_std(group) for group in sampled.groups]
    flat = [group.flat for group in sampled.groups]
    rewarded = [rollout.judged.rewarded for rollout in rollouts]
    return {
        "reward": fmean(rewards) if rewards else 0.0,
        "reward_std": fmean(spread),
        "frac_reward_zero_std": fmean(flat),
        **_means("rewards/{}/mean", rewarded),
        **_means("audit/{}/mean", audits),
        "rewards/none": float(len(rollouts) - len(rewards)),
        "resampled_prompts": float(sampled.resampled),
        "entropy": -fmean(drawn) if drawn else 0.0,
        "completions/mean_length": fmean(lengths),
        "completions/min_length": float(min(lengths)),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": fmean(cut),
        **_of_episodes([each.episode for each in rollouts if each.episode is not None]),
    }


def _of_episodes(episodes: Sequence[AgentEpisode]) -> dict[str, float]:
    """Return an episode's mean numbers of turns, calls and errors, and the share of each finish."""
    if not episodes:
        return {}
    finishes = [episode.finish for episode in episodes]
    turns = [len(episode.turns) for episode in episodes]
    calls = [episode.tool_calls for episode in episodes]
    errors = [episode.tool_errors for episode in episodes]
    malformed = [episode.malformed for episode in episodes]
    shares = {f"finish/{name}": finishes.count(name) / len(finishes) for name in FINISHES}
    return {
        "episodes/turns": fmean(turns),
        "episodes/tool_calls": fmean(calls),
        "episodes/tool_errors": fmean(errors),
        "episodes/malformed_calls": fmean(malformed),
        **shares,
    }


def of_policy(
    batch: Sequence[Experience], logprobs: Sequence[Floats | None] = ()
) -> dict[str, float]:
    """Return KL(pi || reference), estimated by k3 (Schulman 2020).

    The mean over the tokens of exp(d) - d - 1, with d = log ref - log pi. pi's logprobs are the
    policy's own `logprobs` where they were computed, else those it was sampled with.
    """
    own = [*logprobs, *[None] * (len(batch) - len(logprobs))]
    differences = []
    for experience, computed_T in zip(batch, own, strict=True):
        pi_T = experience.episode.behaviour if computed_T is None else computed_T
        if experience.reference is not None and pi_T is not None:
            differences.append((experience.reference - pi_T).astype(np.float64))
    if not differences:
        return {"kl": 0.0}
    d_T = np.concatenate(differences)
    return {"kl": float((np.exp(d_T) - d_T - 1).mean())}


def of_update(batch: Sequence[Experience], update: Update, inner: int) -> dict[str, float]:
    """Return an inner update's metrics.

    For the first one also the difference between sampler and trainer on the same weights.
    """
    if inner:
        return dict(update.metrics)
    difference_T = _difference(batch, update.logprobs)
    known = len(difference_T) > 0
    return {
        **update.metrics,
        **of_policy(batch, update.logprobs),  # offline the sampler was another policy
        "sampling/sampling_logp_difference/mean": float(difference_T.mean()) if known else 0.0,
        "sampling/sampling_logp_difference/max": float(difference_T.max()) if known else 0.0,
    }


def _difference(batch: Sequence[Experience], logprobs: Sequence[Floats | None]) -> Floats:
    """Return |log p of the sampler - log p of the trainer| of every token that was computed."""
    differences = [
        np.abs(own_T - experience.episode.behaviour)
        for experience, own_T in zip(batch, logprobs, strict=True)
        if own_T is not None and experience.episode.behaviour is not None
    ]
    return np.concatenate(differences) if differences else np.zeros(0, np.float32)


def _std(group: RolloutGroup) -> float:
    """Return the standard deviation of a group's rewards (Bessel's), 0 below two rewards."""
    rewards_G = group.rewards_G
    return float(np.std(rewards_G, ddof=1)) if len(rewards_G) > 1 else 0.0


def _means(name: str, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    checks = {check: None for row in scores for check in row}
    means = {}
    for check in checks:
        means[name.format(check)] = fmean(row[check] for row in scores if check in row)
    return means
