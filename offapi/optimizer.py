"""The optimizer's settings, and the state of a training run that exact resume needs.

Left out: the update itself, which is each backend's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from offapi.config.bounds import ABOVE_0, AT_LEAST_0, Bound, require
from offapi.episodes import Floats

Arrays = Mapping[str, Floats]


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101), bias-corrected, after norm clipping."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0  # clip to min(1, max / (norm + 1e-6)); 0: off
    bits: int = 32  # of a moment between steps; 8: in blocks (`offapi.moment_levels`)

    def __post_init__(self) -> None:
        decay: Bound = (lambda beta: 0 <= beta < 1, "0 or more and below 1")
        require(self, {"beta1": decay, "beta2": decay, "eps": ABOVE_0})
        require(self, dict.fromkeys(("weight_decay", "max_grad_norm"), AT_LEAST_0))
        require(self, {"bits": (lambda bits: bits in (8, 32), "8 or 32")})


@dataclass(frozen=True)
class TrainState:
    """Everything exact resume needs. Keys are PEFT's parameter names, arrays fp32.

    `lora_A.weight` has shape (rank, in), `lora_B.weight` (out, rank), and with DoRA
    `lora_magnitude_vector` (out,). Of a model trained `full`, keys are the names of its weights.
    Moments of 8 bits are the numbers that they stand for, which pack to the same bits again.
    """

    adapter: Arrays
    exp_avg: Arrays = field(default_factory=dict)
    exp_avg_sq: Arrays = field(default_factory=dict)
    step: int = 0  # optimizer steps taken
