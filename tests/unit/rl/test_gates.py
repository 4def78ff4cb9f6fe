"""The gates of a GRPO run: each fails for its own fault, gives the reason, and can be allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from offapi.backend import Completion, Finish
from offapi.data.documents import Document
from offapi.errors import GateFailed
from offapi.model_spec import DType
from offapi.rl import gates
from offapi.rl.gates import Problem, Streaks
from offapi.rl.reward_pool import Judged
from offapi.rl.rollouts import Prompt, Rollout, RolloutGroup

GOOD = {
    "sampling/sampling_logp_difference/mean": 1e-6,
    "sampling/sampling_logp_difference/max": 5e-4,
    "clip_ratio/low_mean": 0.0,
    "clip_ratio/high_mean": 0.0,
    "ratio/mean": 1.0,
    "grad_norm": 0.5,
    "unreached": 0.0,
}


class Said:
    """A Progress that stores what is reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str = "") -> None:
        self.lines.append(text)

    def progress(self, title: str, total: int | None = None) -> Any:
        raise AssertionError("gates count nothing")


def found(
    more: Mapping[str, float] = {},
    inner: int = 0,
    dtype: DType = "float32",
    quantized: bool = False,
    offline: bool = False,
    signal: bool = True,
) -> list[str]:
    how = {"quantized": quantized, "offline": offline, "signal": signal}
    return [each.gate for each in gates.of_update({**GOOD, **more}, inner, dtype, **how)]


def group(rewards: list[float | None], finish: Finish = "stop", text: str = "x") -> RolloutGroup:
    rollouts = (
        Rollout(Completion((1,), (-0.1,), finish), text, Judged(r, {}, {}), r) for r in rewards
    )
    return RolloutGroup(Prompt(Document("d", "text"), (1,)), tuple(rollouts))


def test_a_sound_update_has_no_problem() -> None:
    assert found() == []
    assert found({"ratio/mean": 1.2, "clip_ratio/high_mean": 0.3}, inner=1) == []


def test_float32_checks_the_maximum_and_coarser_types_the_mean() -> None:
    largest, mean = (
        "sampling/sampling_logp_difference/max",
        "sampling/sampling_logp_difference/mean",
    )
    assert found({largest: 2e-3}) == ["mismatch"]
    assert found({largest: 0.3}, dtype="bfloat16") == []
    assert found({largest: 0.3}, quantized=True) == []
    assert found({mean: 0.03}, dtype="bfloat16") == ["mismatch"]
    assert found({mean: 0.03}, quantized=True) == ["mismatch"]
    assert found({largest: 2e-3}, inner=1) == []


def test_the_first_ratio_is_exactly_one_and_clips_nothing() -> None:
    assert found({"ratio/mean": 1.0 + 1e-6}) == ["ratio"]
    assert found({"clip_ratio/low_mean": 0.01}) == ["ratio"]
    assert found({"clip_ratio/high_mean": 0.01}) == ["ratio"]
    assert (
        found({"ratio/mean": 1.4, "sampling/sampling_logp_difference/max": 3.0}, offline=True) == []
    )


def test_a_gradient_reaches_every_module_in_every_update() -> None:
    assert found({"grad_norm": 0.0}) == ["gradient"]
    assert found({"unreached": 2.0}, inner=3) == ["gradient"]
    assert found({"unreached": 1.0}, offline=True) == ["gradient"]
    problem = gates.of_update(
        {**GOOD, "unreached": 2.0}, 0, "float32", quantized=False, offline=False, signal=True
    )[0]
    assert "2 of the adapted modules get none" in problem.what


def test_streaks_count_steps_in_a_row() -> None:
    def after(streaks: Streaks, flat: float, cut: float) -> Streaks:
        return streaks.after({"frac_reward_zero_std": flat, "completions/clipped_ratio": cut})

    twice = after(after(Streaks(), 1.0, 0.6), 1.0, 0.6)
    assert twice == Streaks(flat=2, cut=2)
    assert after(twice, 0.99, 0.5) == Streaks()
    assert after(twice, 1.0, 0.5) == Streaks(flat=3)


def test_the_kl_alone_may_have_no_gradient() -> None:
    assert found({"grad_norm": 0.0}, signal=False) == []
    assert found({"unreached": 2.0}, signal=False) == []
    assert found({"ratio/mean": 1.1}, signal=False) == ["ratio"]


def test_a_kl_within_rounding_does_not_train() -> None:
    assert not gates.moved({"kl": 4e-7}, "float32", quantized=False)
    assert gates.moved({"kl": 6e-7}, "float32", quantized=False)
    assert not gates.moved({"kl": 1e-4}, "bfloat16", quantized=False)
    assert not gates.moved({"kl": 1e-4}, "float32", quantized=True)
    assert gates.moved({"kl": 3e-4}, "bfloat16", quantized=False)


MOST = "If that is the highest reward"


@pytest.mark.parametrize(
    ("groups", "checks", "reason", "step"),
    [
        (
            [group([0.0, 0.0])],
            True,
            "all are 0, because the model never does what is rewarded.",
            "Start from a trained",
        ),
        (
            [group([1.0, 1.0])] * 2,
            True,
            "all are 1, so there is nothing left to gain.",
            "Use harder documents",
        ),
        ([group([0.5, 0.5])] * 2, True, "all are 0.5.", "Raise the temperature"),
        ([group([-1.0, -1.0])] * 2, False, "all are -1.", MOST),
        ([group([0.0, 0.0])], False, "all are 0.", MOST),
        ([group([1.0, 1.0])], False, "all are 1.", MOST),
        (
            [group([-2.0, -2.0]), group([-1.0, -1.0])],
            False,
            "each prompt's completions are alike.",
            "Raise the temp",
        ),
        (
            [group([0.0, 0.0], "length")],
            True,
            "cut off by the token limit.",
            "Raise the task's max_answer_tokens",
        ),
        (
            [group([1.0, 1.0], "length")],
            False,
            "cut off by the token limit.",
            "Raise the task's max_answer_tokens",
        ),
        (
            [group([0.2, 0.2]), group([0.7, 0.7])],
            True,
            "each prompt's completions are alike.",
            "Raise the temperature",
        ),
        ([group([None, None])], False, "returned None for every completion.", "Fix it"),
    ],
)
def test_no_signal_is_reported_with_its_reason(
    groups: list[RolloutGroup], checks: bool, reason: str, step: str
) -> None:
    assert gates.of_step(Streaks(flat=gates.FLAT_STEPS - 1), groups, 9, checks=checks) == []
    problem = gates.of_step(Streaks(flat=gates.FLAT_STEPS), groups, 9, checks=checks)[0]
    assert problem.gate == "signal"
    assert problem.what.endswith(reason)
    assert problem.next_step.startswith(step)


def test_cut_completions_are_reported_with_the_limit() -> None:
    assert gates.of_step(Streaks(cut=gates.CUT_STEPS - 1), [group([0.0])], 9, checks=True) == []
    problem = gates.of_step(Streaks(cut=gates.CUT_STEPS), [group([0.0])], 9, checks=True)[0]
    assert problem.gate == "cut"
    assert "at 9 tokens" in problem.what
    assert "thinking" not in problem.next_step


def test_completions_that_were_still_thinking_are_said_to_be() -> None:
    thinking = [group([0.0, 0.0], "length", "<think>\nThe shop"), group([0.0], "length")]
    streaks = Streaks(flat=gates.FLAT_STEPS, cut=gates.CUT_STEPS)
    flat, cut = gates.of_step(streaks, thinking, 9, checks=True)
    assert flat.what.endswith("most completions are cut off by the token limit while they think.")
    for problem in (flat, cut):
        assert "template = { enable_thinking = false }" in problem.next_step


def test_a_problem_stops_the_run_unless_it_is_allowed() -> None:
    problems = [Problem("cut", "cut off.", "Fix it."), Problem("signal", "no signal.", "Fix it.")]
    progress = Said()
    with pytest.raises(GateFailed, match="no signal") as error:
        gates.enforce(problems, ("cut",), progress)
    assert error.value.exit_code == 3
    assert (
        error.value.next_step
        == "Fix it. To continue anyway, run it again with --resume --allow signal."
    )
    assert progress.lines == ["Allowed (cut): cut off."]
    gates.enforce(problems, ("signal", "cut"), progress)
    gates.enforce([], (), progress)
