"""Gradients against finite differences of NumPy, AdamW against its formula, and exact resume."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import oracle
import pytest
from implementations import EVERY

from offapi.backend import Backend
from offapi.episodes import Episode, Segment
from offapi.errors import BackendError
from offapi.model_spec import Limits, LoraSpec
from offapi.optimizer import AdamW, Arrays, TrainState

Load = Callable[..., Backend]
SHAPE = LoraSpec(rank=4, alpha=6.0)
PLAIN = AdamW(max_grad_norm=0.0)


def episode(prompt: range | tuple[int, ...], *rest: tuple[int, ...]) -> Episode:
    """Build an episode of a prompt, then learned and given segments in turn."""
    parts = (Segment(tokens, i % 2 == 0) for i, tokens in enumerate(rest))
    return Episode("e", (Segment(tuple(prompt), False), *parts))


BATCH = [
    episode((*range(60, 80), 1, 2), (3, 4, 5)),
    episode((*range(60, 80), 7), tuple(range(8, 40))),
    episode(range(60, 80), (9, 10), (11, 12, 13), (14, 257)),
    episode((5,), (6,)),
]
TOKENS = 3 + 32 + 4 + 1


def loss(truth: oracle.Llama, adapter: Arrays, batch: list[Episode] = BATCH) -> float:
    parts = [oracle.masked(truth.logits(e.tokens, adapter, SHAPE.scale), e) for e in batch]
    return -float(np.concatenate(parts).mean())


def gradient(backend: Backend, batch: list[Episode] = BATCH) -> Arrays:
    """Return the gradient, read off the first moment of one step without clipping."""
    backend.forward_backward(batch)
    backend.optim_step(0.0, PLAIN)
    return {
        name: moment / np.float32(1 - PLAIN.beta1)
        for name, moment in backend.state().exp_avg.items()
    }


def flat(arrays: Arrays) -> np.ndarray:
    return np.concatenate([arrays[name].astype(np.float64).ravel() for name in sorted(arrays)])


def apart(one: Arrays, other: Arrays) -> float:
    """Return the relative difference of two sets of arrays, each as one vector."""
    assert one.keys() == other.keys()
    return float(np.linalg.norm(flat(one) - flat(other)) / np.linalg.norm(flat(other)))


@EVERY
def test_loss_and_count_are_those_of_numpy(
    adapted: Load, truth: oracle.Llama, adapter: Arrays
) -> None:
    metrics = adapted().forward_backward(BATCH)
    assert metrics["loss"] == pytest.approx(loss(truth, adapter), abs=oracle.CLOSE)
    assert metrics["tokens"] == TOKENS


@EVERY
def test_gradient_is_the_slope_of_the_numpy_loss(
    adapted: Load, truth: oracle.Llama, adapter: Arrays
) -> None:
    computed = gradient(adapted())
    length = np.linalg.norm(flat(computed))
    draw = np.random.default_rng(3)
    noise = {name: draw.standard_normal(array.shape) for name, array in adapter.items()}
    directions = [{name: array.astype(np.float64) / length for name, array in computed.items()}]
    directions += [
        {n: noise[n] if part in n else np.zeros_like(noise[n]) for n in noise}
        for part in ("lora_A", "lora_B", "layers.0")
    ]
    for direction in directions:
        ahead, behind = (
            loss(truth, {n: adapter[n] + sign * 1e-5 * direction[n] for n in adapter})
            for sign in (1, -1)
        )
        slope = float(flat(computed) @ flat(direction))
        assert (ahead - behind) / 2e-5 == pytest.approx(slope, rel=1e-4, abs=1e-4)


@EVERY
@pytest.mark.parametrize(
    "limits",
    [
        Limits(train_tokens=1),
        Limits(train_tokens=64),
        Limits(logit_rows=1),
        Limits(train_tokens=80, logit_rows=5),
    ],
)
def test_gradients_are_the_same_for_any_split(adapted: Load, limits: Limits) -> None:
    assert apart(gradient(adapted(limits=limits)), gradient(adapted())) < 1e-5
    split, whole = adapted(limits=limits).forward_backward(BATCH), adapted().forward_backward(BATCH)
    assert split == pytest.approx(whole, rel=1e-5)


def test_order_changes_nothing(adapted: Load) -> None:
    assert apart(gradient(adapted(), BATCH[::-1]), gradient(adapted())) < 1e-5


def test_padding_never_counts(adapted: Load) -> None:
    """A short row next to a long one gives the token-weighted mean of the two alone."""
    short, long = BATCH[3], episode((5,), tuple(range(6, 120)))
    together = gradient(adapted(), [short, long])
    one, other = gradient(adapted(), [short]), gradient(adapted(), [long])
    assert apart(together, {name: (one[name] + 114 * other[name]) / 115 for name in one}) < 1e-5


def test_calls_add_up(adapted: Load) -> None:
    backend = adapted()
    backend.forward_backward(BATCH[:2])
    summed = gradient(backend, BATCH[2:])
    one, other = gradient(adapted(), BATCH[:2]), gradient(adapted(), BATCH[2:])
    assert apart(summed, {name: one[name] + other[name] for name in one}) < 1e-5


@pytest.mark.parametrize(
    "spec", [AdamW(max_grad_norm=1.0, weight_decay=0.1), AdamW(0.8, 0.95, 1e-2, 0.0, 0.0)]
)
def test_adamw_follows_its_formula(adapted: Load, adapter: Arrays, spec: AdamW) -> None:
    """arXiv 1711.05101, algorithm 2, bias-corrected, on the backend's own gradients."""
    backend, probe = adapted(), adapted()
    weights = {name: array.astype(np.float64) for name, array in adapter.items()}
    m, v = ({name: np.zeros_like(array) for name, array in weights.items()} for _ in "mv")
    for step, lr in enumerate((1e-2, 3e-3, 2e-2), start=1):
        probe.restore(TrainState(adapter=backend.state().adapter))
        g = {name: array.astype(np.float64) for name, array in gradient(probe).items()}
        norm = np.linalg.norm(flat(g))
        clip = min(1.0, spec.max_grad_norm / (norm + 1e-6)) if spec.max_grad_norm else 1.0
        backend.forward_backward(BATCH)
        assert backend.optim_step(lr, spec)["grad_norm"] == pytest.approx(norm, rel=1e-5)
        state = backend.state()
        for name in weights:
            m[name] = spec.beta1 * m[name] + (1 - spec.beta1) * clip * g[name]
            v[name] = spec.beta2 * v[name] + (1 - spec.beta2) * (clip * g[name]) ** 2
            first, second = m[name] / (1 - spec.beta1**step), v[name] / (1 - spec.beta2**step)
            weights[name] = weights[name] * (1 - lr * spec.weight_decay) - lr * first / (
                np.sqrt(second) + spec.eps
            )
        assert state.step == step
        assert apart(state.exp_avg, m) < 1e-5
        assert apart(state.exp_avg_sq, v) < 1e-5
        moved = {name: state.adapter[name] - adapter[name] for name in adapter}
        assert apart(moved, {name: weights[name] - adapter[name] for name in adapter}) < 1e-3
    assert spec.max_grad_norm == 0 or clip < 0.9  # it did clip


def test_a_zero_learning_rate_moves_nothing(adapted: Load, adapter: Arrays) -> None:
    backend = adapted()
    gradient(backend)
    for name, array in backend.state().adapter.items():
        np.testing.assert_array_equal(array, adapter[name])


def test_training_lowers_the_loss_and_leaves_the_base_alone(load: Load) -> None:
    backend = load(lora=SHAPE)
    before = backend.score(BATCH, by="reference")
    losses = []
    for _ in range(8):
        losses.append(backend.forward_backward(BATCH)["loss"])
        backend.optim_step(2e-2, AdamW())
    assert losses[-1] < losses[0] - 1
    for one, other in zip(before, backend.score(BATCH, by="reference"), strict=True):
        np.testing.assert_array_equal(one, other)


def snapshot(state: TrainState) -> dict[str, bytes]:
    kinds = {"adapter": state.adapter, "exp_avg": state.exp_avg, "exp_avg_sq": state.exp_avg_sq}
    return {
        f"{kind}/{name}": array.tobytes()
        for kind, arrays in kinds.items()
        for name, array in arrays.items()
    }


def train(backend: Backend, steps: int) -> TrainState:
    for _ in range(steps):
        backend.forward_backward(BATCH)
        backend.optim_step(1e-2, AdamW(weight_decay=0.01))
    return backend.state()


@EVERY
def test_resume_is_exact_to_the_byte(load: Load) -> None:
    half = train(load(lora=SHAPE), 2)
    resumed = load(lora=SHAPE, seed=99)
    resumed.forward_backward(BATCH)  # what was under way is dropped
    resumed.restore(half)
    assert snapshot(resumed.state()) == snapshot(half)
    through = train(load(lora=SHAPE), 4)
    assert snapshot(train(resumed, 2)) == snapshot(through)
    assert resumed.state().step == through.step == 4
    assert snapshot(half) != snapshot(through)  # and the copy did not follow the training


def test_a_fresh_state_is_the_cores_draw(load: Load) -> None:
    from offapi.adapter import module
    from offapi.randomness import lora_matrices

    backend = load(lora=SHAPE, seed=5)
    state = backend.state()
    assert state.step == 0
    assert {name: array.shape for name, array in state.adapter.items()} == oracle.adapter_shapes(
        SHAPE.rank
    )
    for name, array in state.adapter.items():
        (outputs, inputs) = oracle.LINEARS[module(name).split(".", 3)[-1]]
        drawn = lora_matrices(5, module(name), SHAPE.rank, inputs, outputs)[".lora_B." in name]
        np.testing.assert_array_equal(array, drawn)


def test_states_that_do_not_fit_are_refused(adapted: Load, adapter: Arrays) -> None:
    backend = adapted()
    train(backend, 1)
    good = backend.state()
    name = sorted(adapter)[0]
    lacking = {key: array for key, array in adapter.items() if key != name}
    bent = adapter | {name: adapter[name].T.copy()}
    for bad in (
        replace(good, adapter=lacking),
        replace(good, adapter=bent),
        replace(good, exp_avg=lacking),
    ):
        with pytest.raises(BackendError):
            backend.restore(bad)
    assert snapshot(backend.state()) == snapshot(good)


def test_a_gradient_that_is_not_finite_changes_nothing(adapted: Load, adapter: Arrays) -> None:
    backend = adapted()
    name = sorted(adapter)[0]
    poisoned = adapter | {name: np.full_like(adapter[name], np.nan)}
    backend.restore(TrainState(adapter=poisoned))
    before = snapshot(backend.state())
    backend.forward_backward(BATCH)
    with pytest.raises(BackendError, match="must be finite, got nan"):
        backend.optim_step(1e-2, AdamW())
    assert snapshot(backend.state()) == before
    assert backend.state().step == 0
    with pytest.raises(BackendError, match="no gradient"):
        backend.optim_step(1e-2, AdamW())


def test_a_step_without_gradients_is_refused(adapted: Load) -> None:
    backend = adapted()
    with pytest.raises(BackendError, match="gradient"):
        backend.optim_step(1e-2, AdamW())
    train(backend, 1)
    with pytest.raises(BackendError, match="gradient"):
        backend.optim_step(1e-2, AdamW())


@pytest.mark.parametrize("steps", [0, 1])
def test_a_restored_state_has_no_gradient(load: Load, steps: int) -> None:
    backend = load(lora=SHAPE)
    state = train(backend, steps)
    backend.forward_backward(BATCH)
    backend.restore(state)
    with pytest.raises(BackendError, match="gradient"):
        backend.optim_step(1e-2, AdamW())


def test_training_needs_an_adapter(load: Load) -> None:
    with pytest.raises(BackendError):
        train(load(), 1)


def test_an_episode_with_nothing_to_learn_is_refused_by_name(adapted: Load) -> None:
    bad = Episode("row-9", (Segment((1, 2, 3), False),))
    with pytest.raises(ValueError, match="row-9"):
        adapted().forward_backward([*BATCH, bad])


def test_memory_is_reported(load: Load) -> None:
    memory = load(lora=SHAPE).memory()
    assert 0 < memory.used <= memory.peak <= memory.total


def test_the_peak_outlasts_what_was_freed(load: Load, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--device") == "gpu":
        pytest.skip("a GPU's memory is counted by its own library")
    backend = load(lora=SHAPE)
    with mmap.mmap(-1, 400_000_000) as held:
        held.write(b"x" * len(held))
        assert backend.memory().used > 4e8
    memory = backend.memory()
    assert memory.peak > memory.used + 3e8


def test_a_step_at_rate_0_leaves_the_adapters_bytes(load: Load, adapter: Arrays) -> None:
    backend = load(lora=SHAPE)
    before = {
        name: np.where(np.abs(array) < 0.01, np.float32(-0.0), array)
        for name, array in adapter.items()
    }
    backend.restore(TrainState(adapter=before))
    for step in (1, 2):
        backend.forward_backward(BATCH)
        assert backend.optim_step(0.0, AdamW(weight_decay=0.1))["grad_norm"] > 0
        after = backend.state()
        assert {n: a.tobytes() for n, a in after.adapter.items()} == {
            n: a.tobytes() for n, a in before.items()
        }
        assert after.step == step
    assert np.abs(flat(after.exp_avg)).max() > 0
