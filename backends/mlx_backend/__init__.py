"""The MLX backend for Apple Silicon (Metal) and Linux CPU, a twin of the torch backend.

Left out: images and sound.
"""

# ruff: noqa: E402 -- the process has to be prepared before anything imports mlx.core
from .linux_cpu.prepare import prepare_process

prepare_process()

from .backend import load

__all__ = ["load"]
