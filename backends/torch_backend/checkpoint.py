"""Adapter and optimizer as arrays and back, bit for bit. Left out: files, which the core writes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from offapi import adapter as adapters
from offapi.episodes import Floats
from offapi.optimizer import Arrays, TrainState

from .lora import fill, shapes
from .optimizer import create
from .packed_moments import floats
from .policy import Policy


def state(policy: Policy) -> TrainState:
    """See `Backend.state`."""
    moments: dict[str, dict[str, Floats]] = {"exp_avg": {}, "exp_avg_sq": {}}
    for name, parameter in policy.lora.items():
        held = policy.optimizer.state.get(parameter, {}) if policy.optimizer else {}
        for kind, arrays in moments.items():
            if kind in held:
                arrays[name] = _array(floats(held[kind]))
    adapter = {name: _array(parameter.detach()) for name, parameter in policy.lora.items()}
    return TrainState(adapter, moments["exp_avg"], moments["exp_avg_sq"], policy.steps)


def restore(policy: Policy, saved: TrainState) -> None:
    """See `Backend.restore`."""
    adapters.check_state(saved, shapes(policy.lora))
    fill(policy.lora, saved.adapter)
    policy.publish()
    policy.version += 1
    for parameter in policy.lora.values():
        parameter.grad = None
    policy.optimizer, policy.steps = None, saved.step
    if saved.step == 0 or not policy.lora:
        return
    optimizer = create(policy)
    for name, parameter in policy.lora.items():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(saved.step)),
            "exp_avg": _tensor(saved.exp_avg, name, parameter),
            "exp_avg_sq": _tensor(saved.exp_avg_sq, name, parameter),
        }


def _array(tensor: Tensor) -> Floats:
    return np.array(tensor.detach().float().cpu().numpy(), dtype=np.float32, copy=True)


def _tensor(arrays: Arrays, name: str, like: Tensor) -> Tensor:
    return torch.from_numpy(np.array(arrays[name], dtype=np.float32)).to(like.device)
