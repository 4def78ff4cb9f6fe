"""PyTorch on CUDA and on any CPU. See `offapi.backend.Backend` for the contract."""

from .backend import load

__all__ = ["load"]
