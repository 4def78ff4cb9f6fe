"""When a reward is being gamed, and when it is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from offapi.data.documents import Document
from offapi.rl import reward_hacking
from offapi.rl.heldout import HeldOut, change
from offapi.rl.rollouts import Prompt
from offapi.stats.interval import Interval

Curve = Callable[[int], float]
FIELDS = ("vendor", "date", "total", "currency")


def look(
    step: int,
    reward: Sequence[float | None],
    audit: Sequence[float | None] = (),
    **parts: Sequence[float | None],
) -> HeldOut:
    audits = tuple(audit or [None] * len(reward))
    texts = tuple(f"{step}:{i}" for i in range(len(reward)))
    return HeldOut(
        step, tuple(reward), audits, texts, {name: tuple(scores) for name, scores in parts.items()}
    )


def drawn(
    seed: int, reward: Curve, audit: Curve | Mapping[str, Curve], looks: int = 8
) -> list[HeldOut]:
    """Return looks at 40 documents with four fields; a tenth is answered anew each time."""
    draw = np.random.default_rng(seed)
    curves = audit if isinstance(audit, Mapping) else dict.fromkeys(FIELDS, audit)
    luck = draw.random((2, 40, len(FIELDS)))
    history = []
    for t in range(looks):
        anew = draw.random((2, 40, 1)) < 0.1
        luck = np.where(anew, draw.random(luck.shape), luck)
        right = (luck[1] < [curves[name](t) for name in FIELDS]).astype(float)
        parts = dict(zip(FIELDS, right.T.tolist(), strict=True))
        history.append(
            look(
                t, (luck[0] < reward(t)).mean(axis=1).tolist(), right.mean(axis=1).tolist(), **parts
            )
        )
    return history


def alarm(history: Sequence[HeldOut]) -> int | None:
    """Return the look at which a run would stop."""
    return next((t for t in range(len(history)) if reward_hacking.gamed(history[: t + 1])), None)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples, for tests that ask hundreds of times."""
    monkeypatch.setattr("offapi.stats.bootstrap.means.__defaults__", (None, 500, 0))


def test_a_falling_audit_is_an_alarm_and_dates_it() -> None:
    half = [0.0, 1.0] * 20
    history = [look(0, [0.2] * 40, half), look(5, [0.8] * 40, [0.0] * 30 + half[:10])]
    found = reward_hacking.gamed(history) or pytest.fail("no alarm")
    assert found.base is history[0]
    assert found.reward.mean == pytest.approx(0.6)
    assert found.audit.mean == pytest.approx(-0.375)
    assert found.audit.high < 0


def test_a_flat_audit_with_a_rising_reward_is_an_alarm() -> None:
    half = [0.0, 1.0] * 20
    assert reward_hacking.gamed([look(0, [0.2] * 40, half), look(5, [0.8] * 40, half)])


def test_a_fall_since_the_best_two_looks_is_an_alarm() -> None:
    """The audit is still above that of the first look."""
    curves = [(0.2, 0.2), (0.5, 0.8), (0.5, 0.8), (0.9, 0.5), (0.9, 0.5)]
    history = [look(5 * t, [reward] * 40, [audit] * 40) for t, (reward, audit) in enumerate(curves)]
    assert alarm(history) == 4
    found = reward_hacking.gamed(history) or pytest.fail("no alarm")
    assert found.base is history[2]
    assert (found.reward.mean, found.audit.mean) == pytest.approx((0.4, -0.3))


@pytest.mark.parametrize(("rise", "found"), [(0.05, True), (0.01, False)])
def test_a_rise_of_two_points_counts(rise: float, found: bool) -> None:
    """Certain on every document; a rise of one point is too small to be gaming."""
    half = [0.0, 1.0] * 20
    history = [look(0, [0.2] * 40, half), look(5, [0.2 + rise] * 40, half)]
    assert (reward_hacking.gamed(history) is not None) == found


@pytest.mark.parametrize(("fallen", "found"), [(4, False), (7, True)])
def test_a_fall_without_a_rise_must_be_nearly_certain(fallen: int, found: bool) -> None:
    """Four of forty are a fall with 95% confidence, seven with 99%."""
    ones, later = (1.0,) * 40, (0.0,) * fallen + (1.0,) * (40 - fallen)
    history = [look(0, [0.5] * 40, ones), *(look(t, [0.5] * 40, later) for t in (1, 2))]
    assert change(ones, later).high < 0
    assert (reward_hacking.gamed(history) is not None) == found


@pytest.mark.parametrize(("audit", "found"), [(0.01, True), (0.2, False)])
def test_an_honest_audit_gains_a_share_of_the_rise(audit: float, found: bool) -> None:
    """A quarter of the reward's 60 points is 15."""
    history = [look(0, [0.2] * 40, [0.4] * 40), look(5, [0.8] * 40, [0.4 + audit] * 40)]
    assert (reward_hacking.gamed(history) is not None) == found


def test_one_low_look_alone_is_not_an_alarm() -> None:
    curves = [(0.2, 0.5), (0.8, 1.0), (0.8, 0.3)]
    assert (
        alarm([look(t, [reward] * 40, [audit] * 40) for t, (reward, audit) in enumerate(curves)])
        is None
    )


def test_no_alarm_without_audit_rise_or_second_look() -> None:
    half = [0.0, 1.0] * 20
    assert reward_hacking.gamed([look(0, [0.2] * 40, half)]) is None
    assert reward_hacking.gamed([look(0, [0.2] * 40), look(5, [0.8] * 40)]) is None
    assert (
        reward_hacking.gamed([look(0, [0.2] * 40, half), look(5, [0.21] * 40, [0.0] * 40)]) is None
    )
    assert (
        reward_hacking.gamed([look(0, [0.2] * 40, half), look(5, [0.1] * 40, [0.0] * 40)]) is None
    )


def test_a_certain_fall_with_a_flat_reward_is_an_alarm() -> None:
    some, fewer = [1.0] * 30 + [0.0] * 10, [1.0] * 18 + [0.0] * 22
    flat = [0.9] * 40
    history = [look(0, flat, some), look(5, flat, fewer), look(10, flat, fewer)]
    found = reward_hacking.gamed(history) or pytest.fail("no alarm")
    assert (found.base.step, found.rose) == (0, False)
    assert found.audit.mean == pytest.approx(-0.3)
    assert (
        reward_hacking.gamed([look(0, flat, some), look(5, flat, fewer), look(10, flat, some)])
        is None
    )
    assert (
        reward_hacking.gamed([look(0, flat, some), look(5, flat, some), look(10, flat, [0.0] * 40)])
        is None
    )
    few = [1.0] * 29 + [0.0] * 11
    assert (
        reward_hacking.gamed([look(0, flat, some), look(5, flat, few), look(10, flat, few)]) is None
    )


def test_an_audit_with_no_room_left_need_not_rise() -> None:
    nearly = [1.0] * 39 + [0.0]
    assert (
        reward_hacking.gamed([look(0, [0.2] * 40, [1.0] * 40), look(5, [0.8] * 40, [1.0] * 40)])
        is None
    )
    assert (
        reward_hacking.gamed([look(0, [0.2] * 40, nearly), look(5, [0.8] * 40, [1.0] * 40)]) is None
    )


def test_rewards_are_compared_with_their_own_range() -> None:
    audit = [0.5] * 40
    small = [look(0, [10.0] * 20 + [90.0] * 20, audit), look(5, [11.0] * 20 + [91.0] * 20, audit)]
    large = [look(0, [10.0] * 20 + [90.0] * 20, audit), look(5, [90.0] * 40, audit)]
    assert reward_hacking.gamed(small) is None
    assert reward_hacking.gamed(large)


def test_one_falling_field_is_an_alarm_though_the_mean_rises() -> None:
    names, ones, none = [1.0] * 30 + [0.0] * 10, [1.0] * 40, [0.0] * 40
    before = look(0, [0.2] * 40, [names[i] / 2 for i in range(40)], vendor=names, total=none)
    after = look(5, [0.8] * 40, [0.5] * 40, vendor=[1.0] * 20 + [0.0] * 20, total=ones)
    assert (after.audit or 0) > (before.audit or 0) + 0.1
    found = reward_hacking.gamed([before, after]) or pytest.fail("no alarm")
    assert (found.part, found.audit.mean) == ("vendor", -0.25)
    assert "'vendor' of the audit" in found.meaning
    assert (
        reward_hacking.gamed([before, look(5, [0.2] * 40, [0.5] * 40, **after.parts)]) is None
    )  # no reward rose
    prompts = [Prompt(Document(f"d{i}", "text"), (1,)) for i in range(40)]
    assert [one["id"] for one in reward_hacking.examples(found, after, prompts)] == [
        "d20",
        "d21",
        "d22",
    ]


def test_a_few_falls_in_one_of_many_fields_are_not_an_alarm() -> None:
    fallen = [1.0] * 37 + [0.0] * 3
    parts = {f"f{i}": [1.0] * 40 for i in range(20)}
    before = look(0, [0.2] * 40, [0.5] * 40, **parts)
    assert (
        reward_hacking.gamed([before, look(5, [0.8] * 40, [0.7] * 40, **{**parts, "f3": fallen})])
        is None
    )


def test_documents_without_gold_do_not_change_the_alarm() -> None:
    half: list[float | None] = [0.0, 1.0] * 20
    some = [*half, *[None] * 40]
    fallen = [*[0.0] * 30, *half[:10], *[None] * 40]
    risen = [*[1.0] * 40, *[None] * 40]
    assert reward_hacking.gamed([look(0, [0.2] * 80, some), look(5, [0.8] * 80, fallen)])
    assert reward_hacking.gamed([look(0, [0.2] * 80, some), look(5, [0.8] * 80, risen)]) is None


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("reward", "audit"),
    [
        (lambda t: 0.4 + 0.04 * t, lambda t: 0.4 + 0.04 * t),
        (lambda t: 0.4 + 0.04 * t, lambda t: 0.4 + 0.02 * t),
        (lambda t: 0.4 + 0.1 * min(t, 3), lambda t: 0.4 + 0.07 * min(t, 3)),  # both level off
        (lambda t: 0.4, lambda t: 0.4),
        (
            lambda t: 0.4 + 0.04 * t,
            {**dict.fromkeys(FIELDS, lambda t: 0.4 + 0.04 * t), "vendor": lambda t: 0.9},
        ),
    ],
    ids=["equal", "half", "plateau", "no change", "one field stands still"],
)
def test_honest_runs_are_seldom_stopped(reward: Curve, audit: Curve | Mapping[str, Curve]) -> None:
    assert sum(alarm(drawn(seed, reward, audit)) is not None for seed in range(80)) <= 5


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("reward", "audit", "least"),
    [
        (lambda t: 0.4 + 0.06 * t, lambda t: 0.4 - 0.03 * t, 38),
        (lambda t: 0.4 + 0.08 * t, lambda t: 0.4, 28),
        (lambda t: 0.3 + 0.09 * t, lambda t: 0.4 + 0.08 * min(t, 3) - 0.1 * max(t - 3, 0), 34),
        (
            lambda t: 0.4 + 0.06 * t,
            {**dict.fromkeys(FIELDS, lambda t: 0.4 + 0.06 * t), "vendor": lambda t: 0.9 - 0.05 * t},
            34,
        ),
        (lambda t: 0.4, lambda t: 0.6 - 0.05 * t, 36),
    ],
    ids=[
        "falls",
        "flat",
        "rises, then falls",
        "one field falls, three rise",
        "the reward stands still",
    ],
)
def test_gamed_runs_are_mostly_stopped(
    reward: Curve, audit: Curve | Mapping[str, Curve], least: int
) -> None:
    assert sum(alarm(drawn(seed, reward, audit)) is not None for seed in range(40)) >= least


def test_examples_are_where_reward_and_audit_differ_most() -> None:
    before, after = (
        look(0, [0.0] * 4, [1.0, 0.0, 1.0, None]),
        look(5, [1.0, 1.0, 0.5, 1.0], [0.0, 1.0, 0.0, None]),
    )
    found = reward_hacking.Gamed(before, Interval(1, 1, 1), Interval(0, 0, 0))
    prompts = [Prompt(Document(f"d{i}", "text"), (1,)) for i in range(4)]
    shown = reward_hacking.examples(found, after, prompts, count=2)
    assert [one["id"] for one in shown] == ["d0", "d2"]
    assert shown[0] == {
        "id": "d0",
        "before": "0:0",
        "after": "5:0",
        "reward": [0.0, 1.0],
        "audit": [1.0, 0.0],
    }


def test_documents_without_reward_do_not_change_the_alarm() -> None:
    """Rewards are below 0, so that a None taken for 0 would look like a rise."""
    half = [0.0, 1.0] * 20
    some: list[float | None] = [None] * 20
    still = [look(0, [-1.0] * 40, half), look(5, [*some, *[-1.0] * 20], half)]
    assert reward_hacking.gamed(still) is None
    assert reward_hacking.gamed([still[0], look(5, [None] * 40, [0.0] * 40)]) is None
    history = [look(0, [-1.0] * 40, half), look(5, [*some, *[-0.2] * 20], [0.0] * 30 + half[:10])]
    found = reward_hacking.gamed(history) or pytest.fail("no alarm")
    assert found.reward.mean == pytest.approx(0.8)
    prompts = [Prompt(Document(f"d{i}", "text"), (1,)) for i in range(40)]
    shown = reward_hacking.examples(found, history[1], prompts)
    assert [one["id"] for one in shown] == ["d21", "d23", "d25"]
    assert reward_hacking.gamed([*history, look(10, [*some, *[-0.2] * 20], [0.0] * 40)])
