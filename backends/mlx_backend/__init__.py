"""The MLX backend: Apple Silicon (Metal) and Linux CPU.
Same contract and same file names as the torch one.

Left out: distribution, models with windowed or recurrent caches, training more than LoRA.
"""

# ruff: noqa: E402 -- the BLAS has to be open before anything imports mlx.core
from __future__ import annotations

import os

from .linux_cpu import allocator, blas

# float32 means float32: MLX's matrix products otherwise
# keep 10 bits of it on CUDA and on Apple's M5.
os.environ.setdefault("MLX_ENABLE_TF32", "0")
BLAS = blas.open_fast()
allocator.keep_large_blocks()

from .backend import MLXBackend, load

__all__ = ["BLAS", "MLXBackend", "blas", "load"]
