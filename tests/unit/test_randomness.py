"""Random numbers depend on what names them and on nothing else."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from offapi.randomness import lora_matrices, order, uniforms

UNIFORMS = [0.0471135, 0.483983, 0.0099025]
ORDER = (1, 2, 4, 3, 6, 0, 7, 5)
MATRIX = [-0.0018604, 0.4372624, 0.0703647]


def test_a_resumed_run_of_an_older_version_draws_the_same() -> None:
    """Frozen: other numbers here would break every run that is resumed."""
    assert uniforms(3, 2, 1, 0, 3).tolist() == pytest.approx(UNIFORMS, abs=1e-7)
    assert order(3, 1, 8) == ORDER
    a, _ = lora_matrices(3, "model.layers.0.mlp.up_proj", 1, 3, 2)
    assert a[0].tolist() == pytest.approx(MATRIX, abs=1e-7)


def test_every_name_has_numbers_of_its_own() -> None:
    drawn = {uniforms(a, b, c, d, 4).tobytes() for a, b, c, d in product(range(3), repeat=4)}
    assert len(drawn) == 81
    seeds = [*range(300), 2**63, 2**64 - 1, -7]
    assert len({uniforms(seed, 0, 0, 0, 4).tobytes() for seed in seeds}) == len(seeds)
    assert uniforms(0, 0, 0, 0, 6)[:4].tobytes() == uniforms(0, 0, 0, 0, 4).tobytes()


def test_an_adapter_begins_as_nothing_with_a_within_its_bound() -> None:
    """PEFT's default: A uniform within 1 / sqrt(in), B zero."""
    a, b = lora_matrices(0, "m", 8, 100, 5)
    assert (a.shape, b.shape) == ((8, 100), (5, 8))
    assert not b.any()
    assert a.dtype == b.dtype == np.float32
    assert -0.1 <= a.min() < -0.098
    assert 0.098 < a.max() <= 0.1
    assert abs(a.mean()) < 0.006
    assert lora_matrices(0, "n", 8, 100, 5)[0].tobytes() != a.tobytes()


def test_each_epoch_has_all_rows_in_an_order_of_its_own() -> None:
    orders = [order(0, epoch, 20) for epoch in range(3)]
    assert all(sorted(each) == list(range(20)) for each in orders)
    assert len(set(orders)) == 3
    assert order(1, 0, 20) != orders[0]
