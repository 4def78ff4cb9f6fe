"""Settings of the process that must be in place before `mlx.core` is first imported."""

from __future__ import annotations

import os

from . import allocator, blas


def prepare_process() -> None:
    """Ask for full float32 products, and on Linux open a fast BLAS and keep large blocks."""
    # MLX's products otherwise keep 10 bits of float32's mantissa on CUDA and on Apple's M5.
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
    blas.open_fast()
    allocator.keep_large_blocks()
