"""Every rule's advantages and loss on every backend, in float64, against NumPy and golden vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import policy_oracle
import pytest
from policy_oracle import Array, Sample

from offapi.episodes import Floats
from offapi.policy_loss import RULES, PolicyLoss

GOLDEN = orjson.loads((Path(__file__).parent / "grpo_golden.json").read_bytes())
ATOL = {"torch": 1e-13, "mlx": 1e-6}  # MLX computes exp of float64 to 5e-7


@dataclass(frozen=True)
class Result:
    """What a backend makes of a batch: loss, d loss / d logprobs (T,), statistics (5,)."""

    loss: float
    gradient: Array
    statistics: Array


def columns(batch: Sequence[Sample]) -> dict[str, Array | None]:
    """Return the arrays of all samples end to end, None if a sample has none."""
    arrays: dict[str, Array | None] = {}
    for name in ("logprobs", "old", "behaviour", "reference"):
        parts = [getattr(sample, name) for sample in batch]
        missing = any(part is None for part in parts)
        arrays[f"{name}_T"] = None if missing else np.concatenate(parts)
    return arrays


def per_ratio(batch: Sequence[Sample], loss: PolicyLoss) -> Array:
    """Return the advantage of every ratio, end to end."""
    if loss.shape.ratio != "token":
        return np.array([sample.advantage for sample in batch])
    return np.concatenate([np.broadcast_to(s.advantage, s.logprobs.shape) for s in batch])


def on_torch(batch: Sequence[Sample], dtype: str, **rest: Any) -> Result:
    import torch

    policy_loss = import_module("offapi.backends.torch_backend.policy_loss").policy_loss
    kind = getattr(torch, dtype)
    arrays = {
        name: None if x is None else torch.tensor(x, dtype=kind)
        for name, x in columns(batch).items()
    }
    logprobs: Any = arrays.pop("logprobs_T")
    logprobs.requires_grad_()
    advantages_U = torch.tensor(per_ratio(batch, rest["loss"]), dtype=kind)
    value, statistics = policy_loss(logprobs, **arrays, advantages_U=advantages_U, **rest)
    assert value.dtype == kind
    (slopes,) = torch.autograd.grad(value, logprobs)
    return Result(float(value.detach()), slopes.numpy(), statistics.numpy())


def on_mlx(batch: Sequence[Sample], dtype: str, **rest: Any) -> Result:
    import mlx.core as mx

    policy_loss = import_module("offapi.backends.mlx_backend.policy_loss").policy_loss
    kind = getattr(mx, dtype)
    with mx.stream(mx.cpu):  # where MLX has float64
        arrays = {
            name: None if x is None else mx.array(x, dtype=kind)
            for name, x in columns(batch).items()
        }
        logprobs: Any = arrays.pop("logprobs_T")
        advantages_U = mx.array(per_ratio(batch, rest["loss"]), dtype=kind)

        def share(logprobs: mx.array) -> Any:
            return policy_loss(logprobs, **arrays, advantages_U=advantages_U, **rest)

        (value, statistics), slopes = mx.value_and_grad(share)(logprobs)
        assert value.dtype == kind
        return Result(float(np.array(value)), np.array(slopes), np.array(statistics))


@pytest.fixture
def compute(backend_name: str) -> Callable[..., Result]:
    """`compute(batch, rule=..., **knobs)`; `of=` the whole batch if this is a part; `dtype`."""

    def run(
        batch: Sequence[Sample], of: Sequence[Sample] = (), dtype: str = "float64", **knobs: Any
    ) -> Result:
        lengths = [len(sample.logprobs) for sample in batch]
        tokens = sum(len(sample.logprobs) for sample in of or batch)
        on = {"torch": on_torch, "mlx": on_mlx}[backend_name]
        rest = {"lengths": lengths, "sequences": len(of or batch), "tokens": tokens}
        return on(batch, dtype, loss=PolicyLoss(**knobs), **rest)

    return run


@pytest.fixture
def advantages(backend_name: str) -> Callable[..., list[Floats]]:
    """The function behind the backend's `advantages` verb."""
    of: Callable[..., list[Floats]] = import_module(
        f"offapi.backends.{backend_name}_backend.advantages"
    ).advantages
    if backend_name == "mlx":
        return of
    import torch

    return lambda rewards, rule: of(rewards, rule, torch.device("cpu"))


def draw(seed: int, sequences: int = 9, spread: float = 0.4) -> list[Sample]:
    """Draw ragged sequences with advantages of both signs and 0, and ratios beyond every clip."""
    rng = np.random.default_rng(seed)
    batch = []
    for i in range(sequences):
        logprobs = -rng.exponential(1.0, size=int(rng.integers(1, 9)))
        near = 1e-4 if i % 4 == 3 else spread  # some within GSPO's clip
        old, behaviour, reference = (
            logprobs + scale * rng.standard_normal(len(logprobs)) for scale in (near, 0.8, 0.5)
        )
        batch.append(
            Sample(logprobs, float(rng.standard_normal()) * (i != 4), old, behaviour, reference)
        )
    return batch


def golden_batch(advantages: Sequence[float] | Array, behaviour: bool = False) -> list[Sample]:
    """Return the inputs of grpo_golden.json: closed formulas of the row i and the token t."""
    batch = []
    for i, length in enumerate((5, 3, 4, 2, 5, 1, 3, 4, 5)):
        t = np.arange(length)
        old = -(0.5 + 0.1 * ((3 * i + 2 * t) % 7))
        new = old + 0.45 * np.sin(1.7 * i + 0.9 * t)
        sampler = old - 0.60 * np.sin(0.5 * i + 2.1 * t)
        reference = old + 0.20 * np.cos(0.8 * i + 1.3 * t)
        batch.append(Sample(new, advantages[i], old, sampler if behaviour else None, reference))
    return batch


REWARDS = ((1.0, 0.0, 0.0), (0.2, 0.9, 0.5), (1.0, 1.0, 1.0))
# Name in the file, the knobs, and whether the sampler's logprobs come in.
GOLDEN_LOSSES: dict[str, tuple[dict[str, Any], bool]] = {
    "grpo  tok-ratio eps.2  A=ddof1  agg=seqmean": ({"rule": "grpo"}, False),
    "dapo  tok-ratio .2/.28 A=ddof1  agg=tokenmean": ({"rule": "dapo"}, False),
    "drgrpo tok-ratio eps.2 A=centered agg=sum/(B*LMAX)": (
        {"rule": "dr_grpo", "max_tokens": 5},
        False,
    ),
    "gspo  seq-ratio 3e-4/4e-4 A=ddof1 agg=seqmean": ({"rule": "gspo"}, False),
    "cispo min(r,1+.28) A=ddof1 agg=tokenmean": ({"rule": "cispo"}, False),
    "rloo  seq-sum-ratio eps.2 A=loo agg=seq mean": ({"rule": "rloo"}, False),
    "maxrl tok-ratio eps.2 A=(r-m)/m agg=tokenmean": ({"rule": "maxrl"}, False),
    "grpo + token TIS C=2": ({"rule": "grpo", "tis_cap": 2.0}, True),
}
GOLDEN_KL = {"kl k2 tokenmean": "k2", "kl ratio*k3 tokenmean (DSv3.2 / TRL default)": "ratio_k3"}


def is_golden(name: str, loss: float, gradient: Array) -> None:
    """Compare to 1e-6, or to the last digit in the file: 8 of the loss, 6 of the gradient."""
    expected = GOLDEN["variants"][name]
    assert loss == pytest.approx(expected["loss"], rel=1e-6, abs=1e-8)
    assert gradient.sum() == pytest.approx(expected["grad_sum"], rel=1e-6, abs=6e-7)
    assert np.linalg.norm(gradient) == pytest.approx(expected["grad_l2"], rel=1e-6, abs=6e-7)


@pytest.mark.parametrize("name", GOLDEN_LOSSES)
def test_golden_losses(compute: Callable[..., Result], name: str) -> None:
    knobs, sampler = GOLDEN_LOSSES[name]
    exact = np.concatenate([policy_oracle.ADVANTAGES[knobs["rule"]](group) for group in REWARDS])
    batch = golden_batch(exact, behaviour=sampler)
    is_golden(name, policy_oracle.loss(batch, **knobs), policy_oracle.gradient(batch, **knobs))
    result = compute(batch, **knobs)
    is_golden(name, result.loss, result.gradient)


@pytest.mark.parametrize("name", GOLDEN_KL)
def test_golden_kl(compute: Callable[..., Result], name: str) -> None:
    knobs: dict[str, Any] = {"rule": "dapo", "beta": 1.0, "kl": GOLDEN_KL[name]}
    batch = golden_batch([0.0] * 9)
    is_golden(name, policy_oracle.loss(batch, **knobs), policy_oracle.gradient(batch, **knobs))
    result = compute(batch, **knobs)
    is_golden(name, result.loss, result.gradient)


KNOBS: dict[str, dict[str, Any]] = {
    "alone": {},
    "clip": {"epsilon": 0.05, "epsilon_high": 0.4},
    "k3": {"beta": 0.3},
    "k2": {"beta": 0.3, "kl": "k2"},
    "cap": {"tis_cap": 1.1},
    "no tis": {"tis_cap": 0.0},
}


def taken(rule: str, knobs: dict[str, Any]) -> dict[str, Any]:
    """Return `knobs` as `rule` takes them: CISPO has no bound below."""
    return {
        "rule": rule,
        **{name: value for name, value in knobs.items() if (rule, name) != ("cispo", "epsilon")},
    }


@pytest.mark.parametrize("knobs", KNOBS)
@pytest.mark.parametrize("rule", RULES)
def test_loss_gradient_and_statistics_are_numpys(
    compute: Callable[..., Result], backend_name: str, rule: str, knobs: str
) -> None:
    chosen = taken(rule, KNOBS[knobs]) | {"max_tokens": 11}
    atol = ATOL[backend_name]
    clip = PolicyLoss(**chosen)
    clipped = np.zeros(2)
    for seed in range(4):
        batch = draw(seed)
        result = compute(batch, **chosen)
        expected = policy_oracle.gradient(batch, **chosen)
        assert result.loss == pytest.approx(float(policy_oracle.loss(batch, **chosen)), abs=atol)
        np.testing.assert_allclose(result.gradient, expected, atol=atol * np.abs(expected).max())
        counted = policy_oracle.statistics(batch, rule, clip.low, clip.high)
        np.testing.assert_allclose(result.statistics, counted, rtol=max(10 * atol, 1e-13))
        assert counted[2] + counted[3] < counted[4]
        clipped += counted[2:4]
    assert clipped[1] > 0
    assert clipped[0] > 0 or rule == "cispo"


@pytest.mark.parametrize("rule", RULES)
def test_parts_of_a_batch_add_up(
    compute: Callable[..., Result], backend_name: str, rule: str
) -> None:
    batch = draw(5)
    knobs = {"rule": rule, "max_tokens": 9, "beta": 0.1}
    whole = compute(batch, **knobs)
    for cuts in ((4,), (1, 2, 7), range(1, 9)):
        bounds = [0, *cuts, len(batch)]
        parts = [compute(batch[a:b], of=batch, **knobs) for a, b in pairwise(bounds)]
        assert sum(part.loss for part in parts) == pytest.approx(whole.loss, abs=ATOL[backend_name])
        joined = np.concatenate([part.gradient for part in parts])
        np.testing.assert_allclose(joined, whole.gradient, atol=ATOL[backend_name])
        sums = np.array([part.statistics for part in parts])
        np.testing.assert_allclose(
            sums[:, [0, 2, 3, 4]].sum(0), whole.statistics[[0, 2, 3, 4]], rtol=1e-6
        )
        assert sums[:, 1].max() == pytest.approx(whole.statistics[1])


@pytest.mark.parametrize("rule", RULES)
def test_the_first_update_has_ratio_one_and_clips_nothing(
    compute: Callable[..., Result], backend_name: str, rule: str
) -> None:
    batch = [replace(sample, old=None) for sample in draw(6)]
    result = compute(batch, beta=0.2, **taken(rule, {"epsilon": 1e-9, "epsilon_high": 1e-9}))
    units = (
        len(batch) if rule in ("gspo", "rloo") else sum(len(sample.logprobs) for sample in batch)
    )
    np.testing.assert_array_equal(result.statistics, [units, 1.0, 0, 0, units])
    expected = policy_oracle.gradient(batch, rule=rule, beta=0.2)
    np.testing.assert_allclose(result.gradient, expected, atol=ATOL[backend_name])
    given = compute(
        [replace(sample, old=sample.logprobs.copy()) for sample in batch], rule=rule, beta=0.2
    )
    np.testing.assert_allclose(result.gradient, given.gradient, atol=1e-15)
    assert result.loss == pytest.approx(given.loss, abs=1e-15)


def test_on_policy_the_loss_is_zero_and_its_gradient_is_not(
    compute: Callable[..., Result],
) -> None:
    sizes, own = (5, 2, 3), policy_oracle.by_standard_deviation((0.1, 0.9, 0.4))
    batch = [Sample(-np.arange(1.0, n + 1), a) for n, a in zip(sizes, own, strict=True)]
    result = compute(batch, rule="grpo")
    assert result.loss == pytest.approx(0.0, abs=1e-7)
    assert np.abs(result.gradient).max() > 0.05


@pytest.mark.parametrize("rule", RULES)
def test_a_ratio_that_overflows_is_clipped_like_any_other(
    compute: Callable[..., Result], rule: str
) -> None:
    """Sums of log-ratios over a long sequence can leave float32's range.

    A clipped ratio still has no gradient.
    """
    for dtype, far in (("float32", 60.0), ("float64", 500.0)):
        gone = Sample(np.full(2, -1.0), 0.5, np.full(2, -1.0 - far))
        batch = [gone, Sample(np.full(3, -1.0), -0.5, np.full(3, -1.0))]
        result = compute(batch, rule=rule, dtype=dtype)
        assert np.isfinite(result.gradient).all()
        assert np.isfinite(result.loss)
        if rule != "cispo":
            np.testing.assert_array_equal(result.gradient[:2], 0)


def test_a_missing_reference_is_refused(compute: Callable[..., Result]) -> None:
    with pytest.raises(ValueError, match="needs reference logprobs"):
        compute([replace(sample, reference=None) for sample in draw(7)], beta=0.1)


# KL: which gradient it has, by enumeration of a policy of one token


def softmax(logits: Array) -> Array:
    return np.asarray(np.exp(logits) / np.exp(logits).sum())


THETA, TOWARDS = np.array([0.3, -1.0, 0.8, 0.1, -0.4]), np.array([-0.2, 0.5, 0.9, -1.1, 0.0])


def expected_gradient(slopes: Array) -> Array:
    """Return E over x ~ softmax(THETA) of slope(x) d log pi(x) / d theta, shape (V,)."""
    pi = softmax(THETA)
    return np.asarray(pi * slopes @ (np.eye(len(pi)) - pi))


@pytest.mark.parametrize("kl", ["ratio_k3", "k2"])
def test_the_penaltys_expected_gradient_is_the_kls(
    compute: Callable[..., Result], backend_name: str, kl: str
) -> None:
    pi, reference = softmax(THETA), softmax(TOWARDS)
    d = np.log(reference) - np.log(pi)
    wanted = pi * (-d - pi @ -d)  # of sum pi log(pi / reference), by its derivative in the logits
    batch = [
        Sample(np.log(pi[x : x + 1]), 0.0, reference=np.log(reference[x : x + 1]))
        for x in range(len(pi))
    ]
    result = compute(batch, rule="grpo", beta=1.0, kl=kl).gradient * len(batch)
    np.testing.assert_allclose(expected_gradient(result), wanted, atol=ATOL[backend_name])
    plain_k3, k1 = 1 - np.exp(d), np.ones(len(pi))  # the known mistakes: a bare k3, and k1
    assert np.abs(expected_gradient(plain_k3) - wanted).max() > 0.05
    np.testing.assert_allclose(expected_gradient(k1), 0, atol=1e-15)


# Advantages


@pytest.mark.parametrize("rule", RULES)
def test_advantages_of_ragged_groups(advantages: Callable[..., list[Floats]], rule: str) -> None:
    rng = np.random.default_rng(8)
    for _ in range(5):
        groups = [
            rng.choice([0.0, 0.25, 0.7, 1.0], int(rng.integers(1, 12))).tolist() for _ in range(9)
        ]
        groups += [rng.random(4).tolist(), (-rng.random(6)).tolist()]
        result = advantages(groups, rule)
        assert len(result) == len(groups)
        for group, one in zip(groups, result, strict=True):
            assert one.dtype == np.float32
            assert one.shape == (len(group),)
            np.testing.assert_allclose(
                one, policy_oracle.ADVANTAGES[rule](group), rtol=1e-6, atol=1e-6
            )


GOLDEN_ADVANTAGES = {
    "grpo_ddof1": ("grpo", "dapo", "gspo", "cispo"),
    "centered": ("dr_grpo",),
    "rloo": ("rloo",),
    "maxrl": ("maxrl",),
}


def test_golden_advantages(advantages: Callable[..., list[Floats]]) -> None:
    assert sorted(rule for rules in GOLDEN_ADVANTAGES.values() for rule in rules) == sorted(RULES)
    for name, rules in GOLDEN_ADVANTAGES.items():
        for rule in rules:
            np.testing.assert_allclose(
                np.concatenate(advantages(REWARDS, rule)), GOLDEN["advantages"][name], atol=6e-7
            )


@pytest.mark.parametrize("rule", RULES)
def test_a_group_without_variance_has_zero_advantages(
    advantages: Callable[..., list[Floats]], rule: str
) -> None:
    flat = [
        [0.1] * 3,
        [0.7] * 7,
        [0.7],
        [1.0] * 4,
        [0.0] * 5,
        [-0.3] * 6,
        [1e6 + 0.1] * 11,
        [1 / 3] * 9,
    ]
    for one in advantages([*flat, [0.0, 1.0]], rule)[:-1]:
        np.testing.assert_array_equal(one, 0)
    assert any(np.asarray([0.7] * 7) - np.mean([0.7] * 7))  # the mean itself does round


def test_a_mean_of_zero_divides_nothing(advantages: Callable[..., list[Floats]]) -> None:
    for one in advantages([[-1.0, 1.0], [0.1, 0.2, -0.3]], "maxrl"):
        np.testing.assert_array_equal(one, 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("rule", RULES)
def test_a_reward_that_is_not_finite_is_refused(
    advantages: Callable[..., list[Floats]], rule: str, bad: float
) -> None:
    with pytest.raises(ValueError, match="finite"):
        advantages([[0.1, 0.2], [0.3, bad, 0.4]], rule)


# The knobs


def test_epsilons_by_the_papers_names() -> None:
    assert (PolicyLoss("grpo", epsilon=0.1).low, PolicyLoss("grpo", epsilon=0.1).high) == (0.1, 0.1)
    assert (
        PolicyLoss("grpo", epsilon_high=0.3).low,
        PolicyLoss("grpo", epsilon_high=0.3).high,
    ) == (0.2, 0.3)
    assert (PolicyLoss("dapo", epsilon=0.1).low, PolicyLoss("dapo", epsilon=0.1).high) == (
        0.1,
        0.28,
    )
    assert (PolicyLoss("gspo").low, PolicyLoss("gspo").high) == (3e-4, 4e-4)
    assert PolicyLoss("cispo", epsilon_high=4.0).high == 4.0
