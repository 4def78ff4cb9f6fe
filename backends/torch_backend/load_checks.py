"""Checks of a loaded model before its numbers are trusted, cheap enough for every load."""

from __future__ import annotations

import torch

from offapi.adapter import check_finite, not_finite
from offapi.episodes import Episode, Segment

from .losses import score
from .policy import Policy


def check_weights(policy: Policy) -> None:
    """Raise ModelError for a weight that is NaN or infinite."""
    names, sound = [], []
    for name, parameter in policy.model.named_parameters():
        names.append(name)
        sound.append(torch.stack(torch.aminmax(parameter.detach())).isfinite().all())
    for name, fine in zip(names, torch.stack(sound).tolist(), strict=True):
        if not fine:
            raise not_finite(name, policy.spec)


def check_logits(policy: Policy) -> None:
    """Raise ModelError unless the model, with its adapter, gives numbers for a few tokens."""
    tokens = tuple(token % policy.vocabulary for token in range(1, 9))
    probe = Episode("load", (Segment(tokens[:1], False), Segment(tokens[1:], True)))
    (logprobs_T,) = score(policy, [probe], "policy", 1.0)
    check_finite(logprobs_T, policy.spec)
