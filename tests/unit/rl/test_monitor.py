"""The monitor's decisions, from figures alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import msgspec
import orjson
import pytest

from offapi.backend import Completion
from offapi.data.documents import Document
from offapi.rl.gates import CUT_STEPS, FLAT_STEPS, Problem
from offapi.rl.heldout import HeldOut
from offapi.rl.monitor import Decision, Figures, Monitor, Trail, find_learned
from offapi.rl.reward_pool import Judged
from offapi.rl.rollouts import Prompt, Rollout, RolloutGroup, Sampled
from offapi.stats.interval import Interval

MONITOR = Monitor(steps=50, eval_every=5, checkpoint_every=4, max_tokens=12, checked=True)


def look(step: int, rewards: Sequence[float], audits: Sequence[float] | None = None) -> HeldOut:
    known = tuple(audits) if audits is not None else (None,) * len(rewards)
    texts = tuple(f"{step}:{i}" for i in range(len(rewards)))
    return HeldOut(step, tuple(rewards), known, texts)


def sampled(*rewards: float, recorded: bool = False) -> Sampled:
    completion = Completion((1,), (0.0,), "stop")
    rollouts = tuple(Rollout(completion, "x", Judged(r, {}, {}), r) for r in rewards)
    group = RolloutGroup(Prompt(Document("d", "text"), (1,)), rollouts)
    return Sampled((group,), recorded=recorded)


def figures(flat: bool = False, cut: bool = False, seen: HeldOut | None = None) -> Figures:
    metrics = {"frac_reward_zero_std": float(flat), "completions/clipped_ratio": float(cut)}
    return Figures(sampled(0.0, 0.0 if flat else 1.0), metrics, seen)


def gates_of(problems: Sequence[Problem]) -> list[str]:
    return [problem.gate for problem in problems]


def started(*rewards: float) -> Trail:
    return MONITOR.start(look(0, rewards or (0.5, 0.5)), []).trail


def test_looks_and_checkpoints_are_taken_when_due_and_at_the_end() -> None:
    odd = replace(MONITOR, steps=11)
    assert [step for step in range(1, 12) if odd.is_look(step)] == [5, 10, 11]
    trail, taken = started(), []
    for step in range(1, 12):
        decision = odd.after(trail, figures())
        taken += [step] if decision.checkpoint else []
        trail = decision.trail
    assert taken == [4, 8, 11]
    assert trail.step == 11


def test_the_first_look_is_best_and_checks_determinism() -> None:
    seen = look(0, [0.5])
    fine = MONITOR.start(seen, [])
    assert fine == Decision(Trail(history=(seen,)), seen, best=True)
    (problem,) = MONITOR.start(seen, ["d7", "d8"]).broken
    assert problem.gate == "deterministic"
    assert "'d7'" in problem.what


def test_a_look_is_best_only_if_its_audit_is_higher() -> None:
    trail = Trail(history=(look(0, [0.2, 0.4], [0.5, 0.5]),))
    found = []
    looks = (
        look(5, [0.9, 0.9], [0.5, 0.5]),
        look(10, [1.0, 1.0], [0.4, 0.5]),
        look(15, [0.9, 0.9], [0.5, 0.5]),
        look(20, [0.1, 0.1], [0.6, 0.6]),
    )
    for seen in looks:
        decision = MONITOR.after(replace(trail, step=seen.step - 1), figures(seen=seen))
        found.append(decision.best)
        trail = decision.trail
    assert found == [True, False, False, True]
    assert not MONITOR.after(trail, figures()).best
    assert find_learned(trail.history).best.step == 20


@pytest.mark.parametrize(
    ("kind", "patience", "gate"), [("flat", FLAT_STEPS, "signal"), ("cut", CUT_STEPS, "cut")]
)
def test_a_gate_fails_after_enough_steps_in_a_row(kind: str, patience: int, gate: str) -> None:
    bad = figures(flat=kind == "flat", cut=kind == "cut")
    trail, steps = started(), [bad] * (patience - 1) + [figures()] + [bad] * patience
    found = []
    for shown in steps:
        decision = MONITOR.after(trail, shown)
        found.append(gates_of(decision.problems))
        trail = decision.trail
    assert found == [[]] * (len(steps) - 1) + [[gate]]


def test_the_reason_depends_on_who_made_the_reward() -> None:
    long = replace(started(), streaks=replace(started().streaks, flat=FLAT_STEPS))
    shown = figures(flat=True)
    (problem,) = MONITOR.after(long, shown).problems
    assert "the model never does what is rewarded" in problem.what
    own = replace(MONITOR, checked=False)
    recorded = replace(shown, sampled=sampled(0.0, 0.0, recorded=True))
    for decision in (own.after(long, shown), MONITOR.after(long, recorded)):
        assert "all are 0." in decision.problems[0].what


def test_a_changed_base_is_a_problem_before_logging() -> None:
    seen = look(5, [0.5, 0.5])
    shown = replace(figures(seen=seen), same_base=False)
    decision = MONITOR.after(started(), shown)
    assert gates_of(decision.broken) == ["base"]
    assert decision.problems == ()
    assert decision.seen is seen


def gamed() -> tuple[Trail, HeldOut]:
    """Return a trail, and the look at which the reward has risen while the audit fell."""
    before = look(0, [0.1] * 20, [0.9] * 20)
    between = look(5, [0.8] * 20, [0.3] * 20)
    return Trail(9, history=(before, between)), look(10, [0.9] * 20, [0.1] * 20)


def test_the_alarm_is_raised_at_a_look_and_not_between_looks() -> None:
    trail, seen = gamed()
    decision = MONITOR.after(trail, figures(seen=seen))
    assert decision.gamed is not None
    assert decision.gamed.base.step == 0
    assert decision.gamed.sentence.startswith("the reward is being gamed: since step 0")
    assert MONITOR.after(decision.trail, figures()).gamed is None
    honest = replace(seen, audits=(1.0,) * 20)
    calm = replace(trail, history=(trail.history[0], replace(trail.history[1], audits=(1.0,) * 20)))
    assert MONITOR.after(calm, figures(seen=honest)).gamed is None


def test_a_resumed_run_has_the_same_alarm_and_streaks() -> None:
    trail, seen = gamed()
    decision = MONITOR.after(trail, figures(flat=True, cut=True, seen=seen))
    kept = orjson.loads(orjson.dumps(asdict(decision.trail)))
    again = Trail.of(kept)
    assert again == decision.trail
    assert (again.step, again.streaks.flat, again.streaks.cut) == (10, 1, 1)
    assert MONITOR.resume(again).gamed == decision.gamed
    assert MONITOR.resume(again).trail == again
    later = replace(again, step=11)
    assert MONITOR.resume(later).gamed is None
    with pytest.raises(msgspec.ValidationError):
        Trail.of({**kept, "step": "ten"})


def test_what_was_learned_is_the_best_look_against_the_first() -> None:
    history = (
        look(0, [0.2, 0.4] * 20, [0.5] * 40),
        look(5, [0.6, 0.8] * 20, [0.75] * 40),
        look(10, [0.9, 0.9] * 20, [0.25] * 40),
    )
    found = find_learned(history)
    assert found.as_dict() == {
        "best_step": 5,
        "reward": {
            "mean": pytest.approx(0.4),
            "low": pytest.approx(0.4),
            "high": pytest.approx(0.4),
        },
        "audit": {"mean": 0.25, "low": 0.25, "high": 0.25},
        "p": found.p,
        "learned": True,
        "n": 40,
    }
    assert list(found.as_dict()) == ["best_step", "reward", "audit", "p", "learned", "n"]
    assert found.lines()[0].startswith(
        "Best at step 5, on 40 held-out documents: reward 0.300 to 0.700 ("
    )
    assert ", audit 0.500 to 0.750 (" in found.lines()[0]
    assert found.problems() == []


def test_without_a_significant_rise_the_gate_fails() -> None:
    found = find_learned([look(0, [0.5, 0.5]), look(5, [0.5, 0.5])])
    assert found.best.step == 0
    assert found.audit is None
    assert "audit" not in found.lines()[0]
    assert found.as_dict()["audit"] is None
    (problem,) = found.problems()
    assert problem.gate == "learned"
    assert "p = 1, corrected for choosing the best; significant is 0.025 or less" in problem.what


@pytest.mark.parametrize(
    ("low", "p", "surely"),
    [(0.01, 0.001, True), (0.01, 0.03, False), (0.0, 0.001, False), (0.01, 0.025, True)],
)
def test_a_rise_must_pass_the_interval_and_the_test(low: float, p: float, surely: bool) -> None:
    """The interval ignores that the best of several looks was chosen; p does not."""
    found = find_learned([look(0, [0.5] * 9), look(5, [0.6] * 9)])
    changed = replace(found, reward=Interval(0.1, low, 0.2), p=p)
    assert changed.surely == surely
    assert changed.as_dict()["learned"] == surely
    assert [problem.gate for problem in changed.problems()] == ([] if surely else ["learned"])
