"""PyTorch on CUDA and on any CPU. See `offapi.backend.Backend` for the contract."""

from .quiet_imports import QUANTISERS, hidden

with hidden(*QUANTISERS):  # PEFT and transformers import every one that is installed
    from .backend import load

__all__ = ["load"]
