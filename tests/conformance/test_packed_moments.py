"""AdamW with moments of 8 bits: near AdamW of 32, a quarter of the memory, the same bytes after a resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from offapi.backend import Backend
from offapi.episodes import Episode, Segment
from offapi.moment_levels import BLOCK
from offapi.optimizer import AdamW, Arrays, TrainState

Load = Callable[..., Backend]
EIGHT = AdamW(bits=8, weight_decay=0.1)
LR, STEPS = 2e-3, 20


def batch(step: int) -> list[Episode]:
    tokens = np.random.default_rng(step).integers(1, 250, 40).tolist()
    return [Episode("e", (Segment(tuple(tokens[:20]), False), Segment(tuple(tokens[20:]), True)))]


def train(backend: Backend, optimizer: AdamW, first: int, last: int) -> TrainState:
    for step in range(first, last):
        backend.forward_backward(batch(step))
        backend.optim_step(LR, optimizer)
    return backend.state()


def flat(arrays: Arrays) -> np.ndarray:
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


def packed(backend: Any) -> list[Any]:
    """Return the moments as the backend holds them."""
    if backend.name == "torch":
        states = backend.policy.optimizer.state.values()
        return [state[kind] for state in states for kind in ("exp_avg", "exp_avg_sq")]
    return [moment for moments in backend._moments.values() for moment in moments.values()]


def test_steps_of_8_bits_stay_near_those_of_32(adapted: Load, adapter: Arrays) -> None:
    ours, plain = adapted(), adapted()
    eight = train(ours, EIGHT, 0, STEPS)
    whole = train(plain, AdamW(weight_decay=0.1), 0, STEPS)
    start = flat(adapter)
    moved, apart = (
        np.linalg.norm(flat(whole.adapter) - other) for other in (start, flat(eight.adapter))
    )
    assert 0 < apart / moved < 0.05
    for kind in ("exp_avg", "exp_avg_sq"):
        one, other = flat(getattr(eight, kind)), flat(getattr(whole, kind))
        assert np.linalg.norm(one - other) / np.linalg.norm(other) < 0.1
    held = packed(ours)
    numbers = 2 * sum(array.size for array in adapter.values())
    blocks = 2 * sum(-(-array.size // BLOCK) for array in adapter.values())
    assert sum(moment.nbytes for moment in held) == blocks * (BLOCK + 4)
    assert sum(moment.nbytes for moment in held) < numbers * 4 / 3  # the tiny model's ends count


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_resume_gives_the_same_bytes(adapted: Load, stop: int) -> None:
    straight, other = train(adapted(), EIGHT, 0, 5), adapted()
    half = train(other, EIGHT, 0, stop)
    again = adapted()
    again.restore(half)
    resumed = train(again, EIGHT, stop, 5)
    for kind in ("adapter", "exp_avg", "exp_avg_sq"):
        for name, array in getattr(straight, kind).items():
            assert array.tobytes() == getattr(resumed, kind)[name].tobytes(), (kind, name)


def test_what_was_packed_packs_to_the_same_again(backend_name: str) -> None:
    """And a second moment is never 0 unless it is, since the step divides by its root."""
    draw = np.random.default_rng(0)
    numbers = (draw.standard_normal(1000) * 10.0 ** draw.integers(-9, 2, 1000)).astype(np.float32)
    numbers[:4] = 0
    numbers[300:600] = 0
    for signed in (True, False):
        moment = numbers if signed else np.abs(numbers)
        once = through(backend_name, moment, signed)
        assert through(backend_name, once, signed).tobytes() == once.tobytes()
        largest = np.array(
            [np.abs(moment[i // BLOCK * BLOCK :][:BLOCK]).max() for i in range(1000)]
        )
        assert np.abs(once - moment).max() <= 0.0071 * np.abs(moment).max()
        assert (np.abs(once) <= largest).all()
        if not signed:
            assert ((once == 0) == (moment == 0)).all()


def through(backend_name: str, moment: np.ndarray, signed: bool) -> np.ndarray:
    if backend_name == "torch":
        import torch

        from offapi.backends.torch_backend.packed_moments import PackedMoment as TorchMoment

        return TorchMoment.of(torch.from_numpy(moment), signed).floats().numpy()
    import mlx.core as mx

    from offapi.backends.mlx_backend.packed_moments import PackedMoment

    return np.array(PackedMoment.of(mx.array(moment), signed).floats())


def test_bits_may_change_between_steps(adapted: Load) -> None:
    backend = adapted()
    train(backend, EIGHT, 0, 1)
    before = backend.state()
    backend.forward_backward(batch(1))
    backend.optim_step(0.0, AdamW())
    moments = flat(backend.state().exp_avg)
    assert np.linalg.norm(moments) > 0.5 * np.linalg.norm(flat(before.exp_avg))


def test_other_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="8 or 32"):
        AdamW(bits=4)
