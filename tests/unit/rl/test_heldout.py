"""Looks at held-out documents: which is the best, and what changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace

import msgspec
import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from offapi.backend import Completion, Sampling
from offapi.data.documents import Document
from offapi.rl import heldout
from offapi.rl.heldout import HeldOut
from offapi.rl.monitor import Trail
from offapi.rl.reward_pool import Judged
from offapi.rl.rollouts import Prompt, Rollout, RolloutGroup
from offapi.stats.interval import Interval


def look(
    step: int, reward: Sequence[float] | NDArray[np.bool_], audit: Sequence[float] = ()
) -> HeldOut:
    audits = tuple(audit) or (None,) * len(reward)
    return HeldOut(
        step, tuple(map(float, reward)), audits, tuple(f"{step}:{i}" for i in range(len(reward)))
    )


def test_the_best_look_has_the_best_audit_then_reward_then_step() -> None:
    history = [
        look(0, [0.2, 0.4], [0.5, 0.5]),
        look(5, [0.9, 0.9], [0.5, 0.5]),
        look(9, [1, 1], [0.4, 0.5]),
    ]
    assert [one.score for one in history] == [0.5, 0.5, 0.45]
    assert heldout.best(history).step == 5
    assert heldout.best([*history[:2], look(7, [0.9, 0.9], [0.5, 0.5])]).step == 5
    without = [look(0, [0.2, 0.4]), look(5, [0.9, 0.9]), look(9, [0.9, 0.9])]
    assert without[0].audit is None
    assert without[0].score == pytest.approx(0.3)
    assert heldout.best(without).step == 5


def test_metrics_and_rows_omit_a_missing_audit() -> None:
    assert look(0, [0.25, 0.75]).metrics() == {"heldout/reward": 0.5}
    assert look(0, [0.25, 0.75], [1, 0]).metrics() == {"heldout/reward": 0.5, "heldout/audit": 0.5}
    prompts = [Prompt(Document(f"d{i}", "text"), (1,)) for i in range(2)]
    rows = [orjson.loads(line) for line in look(3, [0.25, 0.75]).rows(prompts).splitlines()]
    assert rows[1] == {"id": "d1", "output": "3:1", "reward": 0.75, "audit": None}


def test_change_is_paired_by_document() -> None:
    found = heldout.change((0.0, 0.5) * 20, (0.1, 0.6) * 20)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))


def test_many_looks_seldom_make_chance_significant() -> None:
    """A policy that changes without improving: each look answers some documents anew."""
    learned = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        right = draw.random(40) < 0.5
        history = [look(0, right)]
        for step in range(1, 11):
            right = np.where(draw.random(40) < 0.3, draw.random(40) < 0.5, right)
            history.append(look(step, right))
        best = heldout.best(history)
        learned += heldout.chance(history, best) <= heldout.SURE
    assert learned <= 9  # of 200 at 2.5%: more than 9 in one case of thirty


def test_a_real_rise_is_significant_and_one_document_is_not() -> None:
    history = [look(0, [0.2, 0.4] * 20), look(5, [0.2, 0.4] * 20), look(9, [0.3, 0.6] * 20)]
    assert heldout.chance(history, history[2]) < 0.001
    assert heldout.chance(history, history[1]) == 1.0
    assert heldout.chance(history, history[0]) == 1.0
    alone = [look(0, [0.2]), look(5, [0.3])]
    assert heldout.chance(alone, alone[1]) == pytest.approx(0.5, abs=0.02)


def test_documents_without_gold_do_not_count_in_the_audit() -> None:
    before = HeldOut(
        0, (0.1, 0.1, 0.1), (1.0, None, 0.5), ("", "", ""), {"gold.total": (1.0, None, 0.0)}
    )
    after = HeldOut(
        5, (0.9, 0.9, 0.9), (1.0, None, 1.0), ("", "", ""), {"gold.total": (1.0, None, 1.0)}
    )
    expected = {
        "heldout/reward": pytest.approx(0.1),
        "heldout/audit": 0.75,
        "heldout/audit/gold.total": 0.5,
    }
    assert before.metrics() == expected
    assert heldout.change(before.audits, after.audits).mean == 0.25
    assert after.score == 1.0


def judged(step: int, *rewards: float | None) -> HeldOut:
    return HeldOut(step, rewards, (None,) * len(rewards), ("",) * len(rewards))


def test_documents_without_reward_do_not_count() -> None:
    """Rewards are below 0, so that 0 would be the best there is."""
    before, after = judged(0, -0.5, -0.3, None), judged(5, None, -0.2, -0.9)
    assert before.reward == pytest.approx(-0.4)
    assert before.metrics() == {"heldout/reward": pytest.approx(-0.4), "heldout/none": 1.0}
    assert heldout.change(before.rewards, after.rewards).mean == pytest.approx(0.1)
    assert heldout.means(before.rewards, after.rewards) == (-0.3, -0.2)
    assert (
        heldout.best([before, after]).step == 5
    )  # better where both are known, though lower on its own
    assert heldout.best([before, judged(5, None, -0.4, -0.1)]).step == 0
    assert heldout.best([before, judged(5, None, None, -0.1)]).step == 0


def test_without_any_reward_no_change_is_known() -> None:
    before, nothing = judged(0, -0.5, -0.3), judged(5, None, None)
    assert nothing.metrics() == {"heldout/none": 2.0}
    assert math.isnan(nothing.reward)
    assert heldout.change(before.rewards, nothing.rewards) == Interval(0.0, 0.0, 0.0)
    assert heldout.means(before.rewards, nothing.rewards) == (0.0, 0.0)
    assert heldout.best([before, nothing]) is before
    assert heldout.best([nothing, before]) is nothing


def test_documents_without_reward_are_no_evidence_of_learning() -> None:
    history = [
        judged(0, *[-0.4] * 20, None),
        judged(5, *[-0.1] * 20, -0.9),
        judged(9, *[None] * 21),
    ]
    assert heldout.chance(history, history[1]) < 0.001
    assert heldout.chance([history[0], history[2], history[1]], history[2]) == 1.0


def test_a_look_keeps_a_reward_that_is_not_given() -> None:
    prompts = [Prompt(Document(f"d{i}", "text"), (1,)) for i in range(2)]
    rewards = iter([-0.5, None])

    class Greedy:
        """Stands in for a Sampler."""

        @staticmethod
        def groups(prompts: Sequence[Prompt], step: int) -> list[RolloutGroup]:
            return [RolloutGroup(prompt, (rollout(next(rewards)),)) for prompt in prompts]

    def rollout(reward: float | None) -> Rollout:
        return Rollout(Completion((1,), (0.0,), "stop"), "x", Judged(reward, {}, {}), reward)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heldout, "replace", lambda one, **_: one)
        found = heldout.look(SimpleNamespace(sampling=None, groups=Greedy.groups), prompts, 5)  # type: ignore[arg-type]
    assert found.rewards == (-0.5, None)
    again = msgspec.convert(orjson.loads(orjson.dumps(asdict(Trail(5, history=(found,))))), Trail)
    assert again.history == (found,)
    assert orjson.loads(found.rows(prompts).splitlines()[1])["reward"] is None


def test_a_look_answers_once_and_greedily_whatever_the_training_samples() -> None:
    prompts = [Prompt(Document(f"d{i}", "text"), (1,)) for i in range(2)]
    sampling = Sampling(9, (2,), temperature=0.7, top_k=5, top_p=0.8, min_p=0.1, seed=3)
    asked: list[tuple[int, Sampling, int]] = []

    @dataclass(frozen=True)
    class Asks:
        """Stands in for a Sampler."""

        n: int
        sampling: Sampling

        def groups(self, prompts: Sequence[Prompt], step: int) -> list[RolloutGroup]:
            asked.append((self.n, self.sampling, step))
            completion = Completion((1,), (0.0,), "stop")
            audits = ({"gold": 0.5, "short": 1.0}, {"short": 0.0})
            judged = [Judged(0.5, {}, audits[0], {"total": 0.25}), Judged(0.5, {}, audits[1])]
            pairs = zip(prompts, judged, strict=True)
            return [RolloutGroup(p, (Rollout(completion, "x", j, 0.5),)) for p, j in pairs]

    found = heldout.look(Asks(8, sampling), prompts, 5)  # type: ignore[arg-type]
    assert asked == [(1, Sampling(9, (2,), seed=3), 5)]
    assert found.step == 5
    assert found.audits == (0.75, 0.0)
    # the fields of gold stand for gold where there are any
    assert found.parts == {"short": (1.0, 0.0), "total": (0.25, None)}
