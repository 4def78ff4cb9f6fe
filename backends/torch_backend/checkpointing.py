"""Layers computed again in the backward pass, so that only their inputs are kept until then.

A layer is whatever transformers itself would checkpoint (arXiv 1604.06174), so a model's own
forward and the packed one are served alike, and a shared prefix is recomputed with its rows. Left
out: moving the kept inputs to another device.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from offapi.activation_memory import FreeMemory
from offapi.model_spec import ModelSpec

MMAP_THRESHOLD = -3  # malloc.h
LARGE = 1 << 18  # bytes: larger blocks are mapped on their own


@dataclass
class Checkpointing:
    """Whether the layers of one model are recomputed: where the micro-batch at hand needs it."""

    memory: FreeMemory
    on: bool = False

    @contextmanager
    def of(self, tokens: int) -> Iterator[None]:
        """Run forward and backward pass of a micro-batch of `tokens` tokens inside the context."""
        self.on = self.memory.recomputes(tokens)
        if self.on:
            return_freed_blocks()
        try:
            yield
        finally:
            self.on = False


def return_freed_blocks() -> None:
    """Let glibc give what each recomputed layer frees back to the system, from now on.

    By default it keeps blocks below 32 MiB in its heap, where they lie between others: of eight
    layers' activations 1.4 GB stayed for 0.4. Other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(MMAP_THRESHOLD, LARGE)


def wrap(model: nn.Module, spec: ModelSpec, device: torch.device) -> Checkpointing:
    """Let the layers of `model`, which is on its device, ask the result what to do."""
    free = psutil.virtual_memory().available
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    switch = Checkpointing(FreeMemory(spec.checkpointing, spec.activation_bytes, free, trained))
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.forward = partial(_forward, switch, layer.forward)
    return switch


def _forward(switch: Checkpointing, forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    if not (switch.on and torch.is_grad_enabled()):
        return forward(*given, **named)
    # Nothing in a layer is drawn: dropout is off.
    return checkpoint(forward, *given, use_reentrant=False, preserve_rng_state=False, **named)
