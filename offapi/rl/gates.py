"""Conditions that a GRPO run must meet to mean anything; a failed gate stops the run.

The user may allow a gate to fail. Each message says what happened, what it means and what to do
next. Left out: the alarm for reward hacking, which `offapi.rl.reward_hacking` computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from offapi.errors import GateFailed
from offapi.model_spec import DType
from offapi.progress import Progress
from offapi.rl.rollouts import RolloutGroup
from offapi.text.display import plural
from offapi.text.thinking import mostly_thinking

Gate = Literal[
    "mismatch", "ratio", "gradient", "signal", "cut", "base", "deterministic", "hacking", "learned"
]
GATES: tuple[Gate, ...] = get_args(Gate)
# nats: the largest difference in float32, the mean difference in anything coarser
EXACT, ROUGH = 1e-3, 0.02
FLAT_STEPS, CUT_STEPS = 10, 5  # in a row
MOSTLY = 0.5  # of the completions


@dataclass(frozen=True)
class Problem:
    """A gate that failed: what happened and what to do next."""

    gate: Gate
    what: str
    next_step: str


@dataclass(frozen=True)
class Streaks:
    """The latest steps in a row without a signal, and with most completions cut off."""

    flat: int = 0
    cut: int = 0

    def after(self, metrics: Mapping[str, float]) -> Streaks:
        """Return the streaks after one more step."""
        flat = self.flat + 1 if metrics["frac_reward_zero_std"] == 1.0 else 0
        return Streaks(flat, self.cut + 1 if metrics["completions/clipped_ratio"] > MOSTLY else 0)


def enforce(problems: Sequence[Problem], allow: Sequence[Gate], progress: Progress) -> None:
    """Raise GateFailed for the first problem that is not allowed; report the allowed ones."""
    for problem in problems:
        if problem.gate not in allow:
            anyway = f"To continue anyway, run it again with --resume --allow {problem.gate}."
            raise GateFailed(problem.what, next_step=f"{problem.next_step} {anyway}")
        progress.say(f"Allowed ({problem.gate}): {problem.what}")


def moved(metrics: Mapping[str, float], dtype: DType, *, quantized: bool) -> bool:
    """Return whether the policy differs from the reference by more than numerical error.

    Below that the KL's gradient is rounding, which Adam would turn into full steps.
    """
    error = EXACT if _exact(dtype, quantized) else ROUGH
    return metrics["kl"] > error**2 / 2  # k3 of a difference of that size


def of_update(
    metrics: Mapping[str, float],
    inner: int,
    dtype: DType,
    *,
    quantized: bool,
    offline: bool,
    signal: bool,
) -> list[Problem]:
    """Return the problems after one inner update (0-based).

    Offline, sampler and trainer are different policies from the start. Without a `signal` from the
    rewards, the KL alone gives the gradient, which may be zero.
    """
    problems = [] if inner or offline else _first(metrics, exact=_exact(dtype, quantized))
    if signal and (metrics["grad_norm"] == 0.0 or metrics["unreached"]):
        where = (
            f"{metrics['unreached']:.0f} of the adapted modules get none"
            if metrics["grad_norm"]
            else "it is zero"
        )
        what = f"the gradient does not reach the adapter: {where}."
        step = "Check that `lora.targets` names layers of this model."
        problems.append(Problem("gradient", what, step))
    return problems


def _exact(dtype: DType, quantized: bool) -> bool:
    return dtype == "float32" and not quantized


def _first(metrics: Mapping[str, float], *, exact: bool) -> list[Problem]:
    """Return the problems before any update, when sampler and trainer are the same policy."""
    problems = []
    mean, most = (metrics[f"sampling/sampling_logp_difference/{kind}"] for kind in ("mean", "max"))
    if most > EXACT if exact else mean > ROUGH:
        what = (
            f"sampler and trainer disagree on the same weights, by up to {most:.2g} nats and"
            f" {mean:.2g} on average, so the updates would be wrong."
        )
        step = "This is a fault of the backend or the model. Run `offapi doctor`."
        problems.append(Problem("mismatch", what, step))
    clipped = metrics["clip_ratio/low_mean"] + metrics["clip_ratio/high_mean"]
    if metrics["ratio/mean"] != 1.0 or clipped:
        what = (
            f"before the first update the ratio must be 1 with nothing clipped, got"
            f" {metrics['ratio/mean']:.6f} with {clipped:.1%} of the tokens clipped."
        )
        step = "This is a fault of the backend. Report it with the output of `offapi doctor`."
        problems.append(Problem("ratio", what, step))
    return problems


def of_step(
    streaks: Streaks, groups: Sequence[RolloutGroup], max_tokens: int, *, checks: bool
) -> list[Problem]:
    """Return the problems after a step: no signal, or completions that do not end.

    `checks`: the task's checks make the rewards, which are then 0 to 1.
    """
    problems = []
    if streaks.flat >= FLAT_STEPS:
        why, step = _reason(groups, checks=checks)
        what = (
            f"for {plural(streaks.flat, 'step')} no two completions of a prompt had different"
            " rewards, so"
            f" there was nothing to learn: {why}."
        )
        problems.append(Problem("signal", what, step))
    if streaks.cut >= CUT_STEPS:
        what = (
            f"for {plural(streaks.cut, 'step')} most completions were cut off at"
            f" {plural(max_tokens, 'token')}, so"
            " their answers are incomplete."
        )
        step = (
            "Raise the task's max_answer_tokens, or start from a student that gives short answers"
            " (`adapter`)."
        )
        if _thinking(groups):
            step = f"Most were still thinking. {THINK_LESS}"
        if limits := _limits_reached(groups):
            what = (
                f"for {plural(streaks.cut, 'step')} most episodes ended at a limit, without an"
                f" answer; in this one: {limits}."
            )
            step = (
                "Raise that limit: max_turns, max_answer_tokens (`length`) or max_tool_seconds of"
                " the task, or max_tokens (`tokens`) of the recipe."
            )
        problems.append(Problem("cut", what, step))
    return problems


THINK_LESS = (
    "Raise the task's max_answer_tokens, or end thinking with a setting of the chat template, such"
    " as `template = { enable_thinking = false }`."
)


def _limits_reached(groups: Sequence[RolloutGroup]) -> str:
    """Return how many episodes ended at each limit, in words; "" where there are no episodes."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    reached = [
        rollout.episode.finish
        for rollout in rollouts
        if rollout.episode and rollout.completion.finish == "length"
    ]
    counts = {finish: reached.count(finish) for finish in dict.fromkeys(reached)}
    return ", ".join(f"`{finish}` {count}" for finish, count in counts.items())


def _thinking(groups: Sequence[RolloutGroup]) -> bool:
    return mostly_thinking([rollout.text for group in groups for rollout in group.rollouts])


def _reason(groups: Sequence[RolloutGroup], *, checks: bool) -> tuple[str, str]:
    """Return why no rewards differ, and what to do."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    # as the task gave them, without the cost of the soft limit
    rewards = {rollout.judged.reward for rollout in rollouts if rollout.judged.reward is not None}
    if not rewards:
        step = "Fix it: a reward of None leaves a completion out of the training."
        return "the reward function returned None for every completion", step
    cut = sum(rollout.completion.finish == "length" for rollout in rollouts)
    if cut > MOSTLY * len(rollouts):
        why = "most completions are cut off by the token limit"
        if _thinking(groups):
            return f"{why} while they think", THINK_LESS
        if limits := _limits_reached(groups):
            return f"most episodes end at a limit ({limits})", "Raise that limit."
        return why, "Raise the task's max_answer_tokens."
    if checks and rewards == {0.0}:
        return (
            "all are 0, because the model never does what is rewarded",
            "Start from a trained student (`adapter`).",
        )
    if checks and rewards == {1.0}:
        return (
            "all are 1, so there is nothing left to gain",
            "Use harder documents or stricter checks.",
        )
    why = (
        f"all are {min(rewards):g}" if len(rewards) == 1 else "each prompt's completions are alike"
    )
    if checks or len(rewards) > 1:
        return why, "Raise the temperature or the size of the group (`num_generations`)."
    step = (
        "If that is the highest reward, use harder documents. If it is the lowest, start from a"
        " trained student (`adapter`)."
    )
    return why, step
