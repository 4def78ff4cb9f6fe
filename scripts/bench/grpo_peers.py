"""The peers that offapi's GRPO is measured against, and the ratios that it should reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import grpo_mlx
import grpo_torch
from pairs import Result


@dataclass(frozen=True)
class Peer:
    """A peer: its backend, the phase in which it is compared, how to run it, and the goals."""

    backend: str
    phase: str
    run: Callable[[str, Result, Path], None]
    goals: Mapping[str, float] = field(default_factory=dict)


PEERS: Mapping[str, Peer] = {
    "trl": Peer("torch", "step", grpo_torch.trl, {"tokens_per_second": 3.0, "peak_memory": 0.5}),
    "trl-default": Peer(
        "torch", "step", grpo_torch.trl, {"tokens_per_second": 3.0, "peak_memory": 0.5}
    ),
    "hf-generate": Peer("torch", "rollout", grpo_torch.hf_generate, {"tokens_per_second": 2.0}),
    "peft-loop": Peer("torch", "train", grpo_torch.peft_loop, {"tokens_per_second": 3.0}),
    "mlx-lm-lora": Peer("mlx", "step", grpo_mlx.step),
    "mlx-lm-lora-group": Peer("mlx", "step", grpo_mlx.step),
    "mlx-rollout": Peer("mlx", "rollout", grpo_mlx.rollout, {"tokens_per_second": 4.0}),
    "mlx-rollout-group": Peer("mlx", "rollout", grpo_mlx.rollout, {"tokens_per_second": 1.3}),
}


def version() -> dict[str, str]:
    """Return mlx-lm-lora's version, if it is installed."""
    try:
        return {"mlx-lm-lora": metadata.version("mlx-lm-lora")}
    except metadata.PackageNotFoundError:
        return {}
