"""MLX waits for the CPU where what is scheduled would take more memory than it was given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from offapi.activation_memory import FACTORS, SCORE, Account, ModelSizes

mx = pytest.importorskip("mlx.core")
from offapi.backends.mlx_backend.run_ahead import BLOCK, SCORES, RunAhead, at_most  # noqa: E402

SIDE = 256


def peak() -> int:
    """Return the bytes that a chain of products takes at once."""
    matrix = mx.ones((SIDE, SIDE)) / SIDE
    mx.eval(matrix)
    before: int = mx.get_active_memory()
    result = matrix
    mx.reset_peak_memory()
    for _ in range(40):
        result = mx.maximum(result @ matrix, 0.5)
    mx.eval(result)
    most: int = mx.get_peak_memory()
    return most - before


@pytest.mark.skipif(mx.is_available(mx.gpu), reason="GPUs schedule by MLX's own limit")
def test_operations_wait_for_those_before_them_where_memory_is_short() -> None:
    whole, array = peak(), 4 * SIDE**2
    with at_most(0):
        assert peak() < 10 * array < 20 * array < whole
    with at_most(1 << 40):
        assert peak() > 20 * array
    assert peak() > 20 * array  # as before


def test_work_needs_what_it_holds_and_the_head_or_a_layer() -> None:
    sizes = ModelSizes(layers=2, hidden=10, inner=30, heads=4, queries=20, keys=5, vocabulary=100)
    account = Account(sizes, FACTORS["mlx"], width=4)
    layer = account.layer + SCORES * SCORE * 4 * BLOCK
    assert RunAhead(account, 256).needed(7, 3) == 7 * 3 * 4 + 7 * layer
    wide = replace(account, sizes=replace(sizes, vocabulary=150_000))
    logits = 64 * 150_000  # of as many rows as the head computes at a time
    assert RunAhead(wide, 256).needed(100, 3) == 100 * 3 * 4 + 5 * 4 * logits
