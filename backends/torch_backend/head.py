"""What a model does after its base: the product with the output embedding, and what comes with it.

Granite divides the logits, Cohere multiplies them, Gemma caps them, an adapter may lie on the head.
The model's own forward says it all, so it is run with its base replaced by states that are given.
Left out: heads that read more than the last hidden state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import MoeModelOutputWithPast

LARGE = 100.0  # the probe's largest logit: a cap shows only where logits are large
CLOSE = {torch.float32: 1e-4}  # as a share of LARGE; else 2e-2


class States(MoeModelOutputWithPast):
    """What a base returns, with nothing but its last hidden states."""

    def __getattr__(self, name: str) -> None:
        """What a base of some architecture returns besides; the head does not need it."""
        if name.startswith("__"):
            raise AttributeError(name)


class Given(nn.Module):
    """A base that returns the states it was made with."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = States(last_hidden_state=states)

    def forward(self, *inputs: Any, **more: Any) -> States:
        return self.states


def after_base(model: Any, hidden_TD: Tensor) -> Tensor:
    """Return the logits that `model` computes from the last hidden states of its base, (T, V)."""
    name = model.base_model_prefix
    base = model._modules[name]
    tokens_1T = torch.zeros(1, len(hidden_TD), dtype=torch.long, device=hidden_TD.device)
    try:
        model._modules[name] = Given(hidden_TD[None])
        # not a call, whose hooks would gather a sharded base
        logits_1TV: Tensor = model.forward(input_ids=tokens_1T, use_cache=False).logits
    finally:
        model._modules[name] = base
    return logits_1TV[0]


def is_matrix(model: Any) -> bool:
    """Whether the head is the product with the output embedding (V, D) and nothing else."""
    layer = model.get_output_embeddings()
    if type(layer) is not nn.Linear or layer.bias is not None:
        return False
    matrix: Tensor = layer.weight
    states_RD = torch.linspace(-1.7, 2.3, 3 * matrix.shape[1], device=matrix.device).sin()
    states_RD = states_RD.view(3, -1).to(matrix.dtype)
    with torch.no_grad():
        states_RD *= LARGE / (states_RD @ matrix.T).abs().max().clamp(min=1e-6)
        difference = (after_base(model, states_RD) - states_RD @ matrix.T).abs().max()
    return float(difference) <= LARGE * CLOSE.get(matrix.dtype, 2e-2)


def vocabulary_of(model: Any) -> int:
    """Return how many tokens the model knows: the rows of its head."""
    layer = model.get_output_embeddings()
    return int(getattr(layer, "base_layer", layer).out_features)
