"""MLX waits for the CPU where what is scheduled would take more memory than it was given."""

from __future__ import annotations

import pytest

mx = pytest.importorskip("mlx.core")
from offapi.backends.mlx_backend.run_ahead import at_most  # noqa: E402

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
