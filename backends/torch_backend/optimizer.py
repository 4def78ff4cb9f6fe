"""AdamW after global-norm clipping, by torch's own implementation.

The learning rate comes from the core.
"""

from __future__ import annotations

import math

import torch

from offapi.episodes import Metrics
from offapi.errors import BackendError
from offapi.optimizer import AdamW

from . import full
from .lora import NAME, adapted, matrices
from .packed_moments import with_bits
from .policy import Policy


def step(policy: Policy, lr: float, spec: AdamW) -> Metrics:
    """See `Backend.optim_step`."""
    parameters = [policy.lora[name] for name in sorted(policy.lora)]
    if policy.spec.full and any(parameter.grad is not None for parameter in parameters):
        for parameter in parameters:  # a layer that no token reached is no mistake
            parameter.grad = (
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            )
    if not parameters or any(parameter.grad is None for parameter in parameters):
        raise BackendError(
            "no gradient was accumulated.",
            next_step="Call forward_backward or policy_gradient before optim_step.",
        )
    limit = spec.max_grad_norm or math.inf
    norm = float(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    if not math.isfinite(norm):
        for parameter in parameters:
            parameter.grad = None
        raise BackendError(
            f"the gradient norm must be finite, got {norm}; nothing was changed.",
            next_step="Lower the learning rate, or train in float32.",
        )
    kind = ".weight" if policy.spec.full else ".lora_B."
    watched = [parameter for name, parameter in policy.lora.items() if kind in name]
    unreached = sum(not bool(p.grad.any()) for p in watched if p.grad is not None)
    torch.nn.utils.clip_grads_with_norm_(parameters, limit, torch.tensor(norm))
    optimizer = policy.optimizer = with_bits(policy.optimizer or create(policy), spec.bits)
    for group in optimizer.param_groups:
        group.update(
            lr=lr, betas=(spec.beta1, spec.beta2), eps=spec.eps, weight_decay=spec.weight_decay
        )
    before = [] if lr else [parameter.detach().clone() for parameter in parameters]
    optimizer.step()
    # At rate 0 the old bytes are put back: adding 0 would turn -0.0 into 0.0.
    for parameter, unchanged in zip(parameters, before, strict=False):
        parameter.data.copy_(unchanged)
    optimizer.zero_grad(set_to_none=True)
    policy.publish()
    policy.steps += 1
    policy.version += 1
    return {"grad_norm": norm, "adapter_norm": adapter_norm(policy), "unreached": float(unreached)}


def adapter_norm(policy: Policy) -> float:
    """Return the Frobenius norm of all scale * B A together (scale: alpha / rank, or rsLoRA's).

    ||B A||^2 is the sum of (B^T B) * (A A^T). Trained in full, it is that of all weights.
    """
    if policy.spec.full:
        return full.norm(policy.lora)
    squares = []
    with torch.no_grad():
        for layer in adapted(policy.model):
            a, b = matrices(layer)
            squares.append(layer.scaling[NAME] ** 2 * ((b.T @ b) * (a @ a.T)).sum())
        return math.sqrt(max(float(torch.stack(squares).sum()), 0.0))


def create(policy: Policy) -> torch.optim.AdamW:
    """Create the policy's optimizer, over the adapter alone, in the order of names."""
    policy.optimizer = torch.optim.AdamW(
        [policy.lora[name] for name in sorted(policy.lora)], lr=0.0, foreach=False
    )
    return policy.optimizer
