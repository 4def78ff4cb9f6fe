"""The MLX backend: Apple Silicon (Metal) and Linux CPU. Same contract and same file names as the torch one.

Left out: distribution, models with windowed or recurrent caches, training more than LoRA.
"""

# ruff: noqa: E402 -- the BLAS has to be open before anything imports mlx.core
from __future__ import annotations

from . import allocator, blas

BLAS = blas.open_fast()
allocator.keep_large_blocks()

from .model import MLXBackend, load

__all__ = ["BLAS", "MLXBackend", "blas", "load"]
