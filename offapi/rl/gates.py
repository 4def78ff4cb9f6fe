"""What must hold for a GRPO run to mean anything. A gate
that fails stops the run, unless the user allows it.

Each says in plain words what happened and what to do. Left out: the held-out set's alarm for
reward hacking, which `offapi.rl.heldout` computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from offapi.backend import DType
from offapi.errors import GateFailed
from offapi.progress import Progress
from offapi.rl.rollouts import RolloutGroup

Gate = Literal[
    "mismatch", "ratio", "gradient", "signal", "cut", "base", "deterministic", "hacking", "learned"
]
GATES: tuple[Gate, ...] = get_args(Gate)
EXACT, ROUGH = (
    1e-3,
    0.02,
)  # nats: the largest difference in float32, the mean one in anything coarser
FLAT_STEPS, CUT_STEPS = 10, 5  # in a row
MOSTLY = 0.5  # of the completions


@dataclass(frozen=True)
class Problem:
    """A gate that does not hold."""

    gate: Gate
    what: str
    next_step: str


@dataclass(frozen=True)
class Streaks:
    """How many steps in a row, up to now, taught nothing, and had most completions cut off."""

    flat: int = 0
    cut: int = 0

    def after(self, metrics: Mapping[str, float]) -> Streaks:
        """The streaks after one more step."""
        flat = self.flat + 1 if metrics["frac_reward_zero_std"] == 1.0 else 0
        return Streaks(flat, self.cut + 1 if metrics["completions/clipped_ratio"] > MOSTLY else 0)


def enforce(problems: Sequence[Problem], allow: Sequence[Gate], out: Progress) -> None:
    """Raise GateFailed for the first problem that is not allowed; say the others."""
    for problem in problems:
        if problem.gate not in allow:
            raise GateFailed(
                problem.what, next_step=f"{problem.next_step} Or go on with --allow {problem.gate}."
            )
        out.say(f"Allowed ({problem.gate}): {problem.what}")


def moved(metrics: Mapping[str, float], dtype: DType, *, quantized: bool) -> bool:
    """Whether the policy is further from the reference
    than the same weights may seem to be from themselves.

    Below that the KL's gradient is rounding, which Adam would make into whole steps.
    """
    return (
        metrics["kl"] > (EXACT if _exact(dtype, quantized) else ROUGH) ** 2 / 2
    )  # k3 of such a difference


def of_update(
    metrics: Mapping[str, float],
    inner: int,
    dtype: DType,
    *,
    quantized: bool,
    offline: bool,
    signal: bool,
) -> list[Problem]:
    """After one inner update (0-based). Offline, sampler
    and trainer are different policies from the start.

    Without a `signal` from the rewards, the KL alone gave the gradient, which may be zero.
    """
    found = [] if inner or offline else _first(metrics, exact=_exact(dtype, quantized))
    if signal and (metrics["grad_norm"] == 0.0 or metrics["unreached"]):
        where = (
            f"{metrics['unreached']:.0f} of the adapted modules get none"
            if metrics["grad_norm"]
            else "it is zero"
        )
        found.append(
            Problem(
                "gradient",
                f"the gradient does not reach the adapter: {where}.",
                "Check `lora.targets`.",
            )
        )
    return found


def _exact(dtype: DType, quantized: bool) -> bool:
    return dtype == "float32" and not quantized


def _first(metrics: Mapping[str, float], *, exact: bool) -> list[Problem]:
    """Before any update the sampler and the trainer are one policy: their numbers must say so."""
    found = []
    mean, most = (metrics[f"sampling/sampling_logp_difference/{kind}"] for kind in ("mean", "max"))
    if most > EXACT if exact else mean > ROUGH:
        what = (
            f"sampler and trainer disagree by {most:.2g} nats at most, {mean:.2g} on average, on"
            " the same weights."
        )
        found.append(
            Problem(
                "mismatch",
                what,
                "Run `offapi doctor`; this is a fault of the backend or the model.",
            )
        )
    clipped = metrics["clip_ratio/low_mean"] + metrics["clip_ratio/high_mean"]
    if metrics["ratio/mean"] != 1.0 or clipped:
        what = (
            f"the ratio before any update is {metrics['ratio/mean']:.6f}, not 1, and {clipped:.1%}"
            " is clipped."
        )
        found.append(Problem("ratio", what, "This is a fault of the backend."))
    return found


def of_step(
    streaks: Streaks, groups: Sequence[RolloutGroup], max_tokens: int, *, checks: bool
) -> list[Problem]:
    """After a step: is there a signal, and do completions
    come to an end? `checks`: rewards are theirs, 0 to 1.
    """
    found = []
    if streaks.flat >= FLAT_STEPS:
        why, step = _reason(groups, checks=checks)
        what = (
            f"for {streaks.flat} steps no two completions of a prompt had different rewards: {why}."
        )
        found.append(Problem("signal", what, step))
    if streaks.cut >= CUT_STEPS:
        what = f"for {streaks.cut} steps most completions were cut off at {max_tokens} tokens."
        step = (
            "Raise the task's max_answer_tokens, or start from a student that answers briefly"
            " (`adapter`)."
        )
        found.append(Problem("cut", what, step))
    return found


def _reason(groups: Sequence[RolloutGroup], *, checks: bool) -> tuple[str, str]:
    """Why nothing differs, and what to do."""
    rollouts = [one for group in groups for one in group.rollouts]
    rewards = {
        one.judged.reward for one in rollouts if one.judged.reward is not None
    }  # the soft limit's cost aside
    if not rewards:
        return "the reward function gives None throughout", "Mend it: None leaves a completion out."
    if sum(one.completion.finish == "length" for one in rollouts) > MOSTLY * len(rollouts):
        return (
            "most completions are cut off by the token limit",
            "Raise the task's max_answer_tokens.",
        )
    if checks and rewards == {0.0}:
        return (
            "all are 0, the model never does what is rewarded",
            "Start from a trained student (`adapter`).",
        )
    if checks and rewards == {1.0}:
        return (
            "all are 1, there is nothing left to gain",
            "Take harder documents, or stricter checks.",
        )
    why = (
        f"all are {min(rewards):g}" if len(rewards) == 1 else "each prompt's completions are alike"
    )
    if checks or len(rewards) > 1:
        return why, "Raise the temperature or the group's size `num_generations`."
    step = (
        "If that is the most it can be, take harder documents; if the least, a trained student"
        " (`adapter`)."
    )
    return why, step
