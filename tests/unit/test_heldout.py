"""Looks at held-out documents: which is the best, what changed, and when a reward is being gamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import orjson
import pytest

from offapi.data.documents import Document
from offapi.rl import heldout
from offapi.rl.heldout import HeldOut
from offapi.rl.rollouts import Prompt

Curve = Callable[[int], float]


def look(step: int, reward: Sequence[float], audit: Sequence[float] = ()) -> HeldOut:
    return HeldOut(step, tuple(reward), tuple(audit), tuple(f"{step}:{i}" for i in range(len(reward))))


def drawn(seed: int, reward: Curve, audit: Curve, looks: int = 8, documents: int = 40, parts: int = 4) -> list[HeldOut]:
    """Looks whose scores are shares of `parts` fields right; a tenth of the documents is answered anew at each look."""
    draw = np.random.default_rng(seed)
    luck = draw.random((2, documents, parts))
    history = []
    for t in range(looks):
        anew = draw.random((2, documents, 1)) < 0.1
        luck = np.where(anew, draw.random(luck.shape), luck)
        shares = [(luck[i] < curve(t)).mean(axis=1) for i, curve in enumerate((reward, audit))]
        history.append(HeldOut(t, tuple(shares[0].tolist()), tuple(shares[1].tolist())))
    return history


def alarm(history: Sequence[HeldOut]) -> int | None:
    """The look at which a run would stop."""
    return next((t for t in range(len(history)) if heldout.hacked(history[: t + 1])), None)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples, for tests that ask hundreds of times."""
    monkeypatch.setattr("offapi.stats.bootstrap.means.__defaults__", (None, 500, 0))


def test_the_score_is_the_audit_where_there_is_one_and_of_equals_the_reward_then_the_first_is_best() -> None:
    history = [look(0, [0.2, 0.4], [0.5, 0.5]), look(5, [0.9, 0.9], [0.5, 0.5]), look(9, [1, 1], [0.4, 0.5])]
    assert [one.score for one in history] == [0.5, 0.5, 0.45]
    assert heldout.best(history).step == 5
    assert heldout.best([*history[:2], look(7, [0.9, 0.9], [0.5, 0.5])]).step == 5
    without = [look(0, [0.2, 0.4]), look(5, [0.9, 0.9]), look(9, [0.9, 0.9])]
    assert without[0].audit is None
    assert without[0].score == pytest.approx(0.3)
    assert heldout.best(without).step == 5


def test_metrics_and_rows_leave_out_an_audit_that_is_not_there() -> None:
    assert look(0, [0.25, 0.75]).metrics() == {"heldout/reward": 0.5}
    assert look(0, [0.25, 0.75], [1, 0]).metrics() == {"heldout/reward": 0.5, "heldout/audit": 0.5}
    prompts = [Prompt(Document(f"d{i}", "text"), (1,)) for i in range(2)]
    rows = [orjson.loads(line) for line in look(3, [0.25, 0.75]).rows(prompts).splitlines()]
    assert rows[1] == {"id": "d1", "output": "3:1", "reward": 0.75, "audit": None}


def test_change_is_paired_by_document() -> None:
    found = heldout.change([0.0, 0.5] * 20, [0.1, 0.6] * 20)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))


def test_a_falling_audit_is_an_alarm_and_tells_since_when() -> None:
    half = [0.0, 1.0] * 20
    history = [look(0, [0.2] * 40, half), look(5, [0.8] * 40, [0.0] * 30 + half[:10])]
    base, reward, audit = heldout.hacked(history) or pytest.fail("no alarm")
    assert base is history[0]
    assert reward.mean == pytest.approx(0.6)
    assert audit.mean == pytest.approx(-0.375)
    assert audit.high < 0


def test_an_audit_that_stands_still_while_the_reward_rises_is_an_alarm() -> None:
    half = [0.0, 1.0] * 20
    assert heldout.hacked([look(0, [0.2] * 40, half), look(5, [0.8] * 40, half)])


def test_an_audit_that_fell_since_the_best_two_looks_is_an_alarm_though_it_is_above_the_first() -> None:
    curves = [(0.2, 0.2), (0.5, 0.8), (0.5, 0.8), (0.9, 0.5), (0.9, 0.5)]
    history = [look(5 * t, [reward] * 40, [audit] * 40) for t, (reward, audit) in enumerate(curves)]
    assert alarm(history) == 4
    base, reward, audit = heldout.hacked(history) or pytest.fail("no alarm")
    assert base is history[2]
    assert (reward.mean, audit.mean) == pytest.approx((0.4, -0.3))


def test_one_low_look_alone_is_no_alarm() -> None:
    curves = [(0.2, 0.5), (0.8, 1.0), (0.8, 0.3)]
    assert alarm([look(t, [reward] * 40, [audit] * 40) for t, (reward, audit) in enumerate(curves)]) is None


def test_without_audit_rise_or_second_look_there_is_none() -> None:
    half = [0.0, 1.0] * 20
    assert heldout.hacked([look(0, [0.2] * 40, half)]) is None
    assert heldout.hacked([look(0, [0.2] * 40), look(5, [0.8] * 40)]) is None
    assert heldout.hacked([look(0, [0.2] * 40, half), look(5, [0.21] * 40, [0.0] * 40)]) is None
    assert heldout.hacked([look(0, [0.2] * 40, half), look(5, [0.1] * 40, [0.0] * 40)]) is None


def test_an_audit_with_no_room_left_need_not_rise() -> None:
    nearly = [1.0] * 39 + [0.0]
    assert heldout.hacked([look(0, [0.2] * 40, [1.0] * 40), look(5, [0.8] * 40, [1.0] * 40)]) is None
    assert heldout.hacked([look(0, [0.2] * 40, nearly), look(5, [0.8] * 40, [1.0] * 40)]) is None


def test_rewards_of_any_size_are_held_against_their_own_range() -> None:
    audit = [0.5] * 40
    small = [look(0, [10.0] * 20 + [90.0] * 20, audit), look(5, [11.0] * 20 + [91.0] * 20, audit)]
    large = [look(0, [10.0] * 20 + [90.0] * 20, audit), look(5, [90.0] * 40, audit)]
    assert heldout.hacked(small) is None
    assert heldout.hacked(large)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("reward", "audit"),
    [
        (lambda t: 0.4 + 0.04 * t, lambda t: 0.4 + 0.04 * t),
        (lambda t: 0.4 + 0.04 * t, lambda t: 0.4 + 0.02 * t),
        (lambda t: 0.4 + 0.1 * min(t, 3), lambda t: 0.4 + 0.07 * min(t, 3)),  # both level off
        (lambda t: 0.4, lambda t: 0.4),
    ],
    ids=["equal", "half", "plateau", "no change"],
)
def test_honest_runs_are_seldom_stopped(reward: Curve, audit: Curve) -> None:
    assert sum(alarm(drawn(seed, reward, audit)) is not None for seed in range(40)) <= 3


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("reward", "audit", "least"),
    [
        (lambda t: 0.4 + 0.06 * t, lambda t: 0.4 - 0.03 * t, 38),
        (lambda t: 0.4 + 0.08 * t, lambda t: 0.4, 28),
        (lambda t: 0.3 + 0.09 * t, lambda t: 0.4 + 0.08 * min(t, 3) - 0.1 * max(t - 3, 0), 34),
    ],
    ids=["falls", "flat", "rises, then falls"],
)
def test_gamed_runs_are_mostly_stopped(reward: Curve, audit: Curve, least: int) -> None:
    assert sum(alarm(drawn(seed, reward, audit)) is not None for seed in range(40)) >= least


def test_examples_are_those_whose_reward_rose_most_beside_their_audit() -> None:
    before, after = look(0, [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]), look(5, [1.0, 1.0, 0.5], [0.0, 1.0, 0.0])
    prompts = [Prompt(Document(f"d{i}", "text"), (1,)) for i in range(3)]
    shown = heldout.examples(before, after, prompts, count=2)
    assert [one["id"] for one in shown] == ["d0", "d2"]
    assert shown[0] == {"id": "d0", "before": "0:0", "after": "5:0", "reward": [0.0, 1.0], "audit": [1.0, 0.0]}
