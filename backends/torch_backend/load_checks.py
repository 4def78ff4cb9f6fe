"""Checks of a loaded model before its numbers are trusted, cheap enough for every load.

A model is computed in packed rows where they give what the library's plain forward gives for a few
tokens, and by the library elsewhere. Left out: long rows, which `models add` tries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from offapi.adapter import check_finite, not_finite
from offapi.episodes import Episode, Segment
from offapi.errors import BackendError, ModelError

from .cache import Decoding
from .fused_norms import fuse
from .library_forward import continued, library_attention, library_hidden, select
from .losses import score
from .packed_attention import Packed
from .policy import ATTENTION, Policy
from .quantised import is_packed
from .scores import Scores
from .sharded import held

LONGEST = 48  # tokens of a probe's row: one more than a window is tried up to here
NATS = 1e-3  # in float32; exact implementations differ by some 1e-5
BEHAVIOUR = 1e-4  # nats by which a cached step may differ from the trainer's forward
LOOSE = 0.3  # nats, where weights are not float32; what is wrong differs by whole ones
GROWS = "its rotary embedding depends on the length of the text"
PLAIN_LAYERS = {"full_attention", "sliding_attention"}


def check_weights(policy: Policy) -> None:
    """Raise ModelError for a weight that is NaN or infinite."""
    names, sound = [], []
    for name, parameter in policy.model.named_parameters():
        numbers = held(parameter.detach())
        if numbers.numel():  # a rank may have no row of a small weight
            names.append(name)
            sound.append(torch.stack(torch.aminmax(numbers)).isfinite().all())
    for name, fine in zip(names, torch.stack(sound).tolist(), strict=True):
        if not fine:
            raise not_finite(name, policy.spec)


def check_logits(policy: Policy) -> None:
    """Raise ModelError unless the model, with its adapter, gives numbers for a few tokens."""
    tokens = tuple(token % policy.vocabulary for token in range(1, 9))
    probe = Episode("load", (Segment(tokens[:1], False), Segment(tokens[1:], True)))
    (logprobs_T,) = score(policy, [probe], "policy", 1.0)
    check_finite(logprobs_T, policy.spec)


def choose_implementation(policy: Policy) -> None:
    """Set how the policy computes: as its spec asks, or packed wherever that is right.

    Raise ModelError where packed rows are asked for and wrong.
    """
    asked = policy.spec.implementation
    if asked != "library":
        grows = asked == "auto" and policy.longest is not None
        reason = GROWS if grows else why_not_packed(policy)
        if reason is None:
            if policy.device.type == "cuda" and not policy.lockstep:  # it keeps the weights
                fuse(policy.model)
            return
        if asked == "packed":
            raise ModelError(
                f"this model cannot be computed in packed rows: {reason}.",
                where=str(policy.spec.path),
                next_step="Use implementation = 'auto' or 'library'.",
            )
    policy.implementation = "library"
    library_attention(policy.model)
    policy.cached = cache_agrees(policy)


def why_not_packed(policy: Policy) -> str | None:
    """Return what packed rows and slots do otherwise than the library's plain forward, or None."""
    config = policy.model.config.get_text_config()
    others = set(getattr(config, "layer_types", None) or ()) - PLAIN_LAYERS
    if others:
        return f"it has layers of type {', '.join(sorted(others))}"
    rows_RL = probe_rows(policy)
    try:
        with policy.without_gradients():
            probe = Probe(((0, (rows_RL.shape[1] - 1,) * len(rows_RL)),), keep={})
            packed_RLV = packed_logits(policy, rows_RL, probe)
            with attention_of(policy.model, "eager"):
                plain_RLV = policy.model(input_ids=rows_RL, use_cache=False).logits
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except (
        BackendError,
        RuntimeError,
        TypeError,
        ValueError,
        AttributeError,
        LookupError,
    ) as error:
        return str(error).rstrip(".")
    if wrong := [
        layer for layer, window in probe.windows.items() if window != window_of(config, layer)
    ]:
        return f"the window of layer {wrong[0]} is not what its configuration says"
    if len(probe.windows) != config.num_hidden_layers:
        return "some of its layers do not use the attention that is asked for"
    nats = difference(packed_RLV, plain_RLV)
    limit = NATS if is_exact(policy, plain_RLV) else LOOSE
    if nats <= limit:
        return None
    return f"they differ from its plain forward by {nats:.2g} nats"


@dataclass
class Probe(Packed):
    """A layout that notes the window of each layer."""

    windows: dict[int, int | None] = field(default_factory=dict)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> Tensor:
        self.windows[layer] = scores.window
        return super().attend(layer, q, k, v, scores)


def probe_rows(policy: Policy) -> Tensor:
    """Return two rows of tokens, longer than a window where it is small, (2, L)."""
    window = getattr(policy.model.config.get_text_config(), "sliding_window", None) or 0
    length = window + 4 if 6 <= window + 4 <= LONGEST else 6
    tokens = torch.arange(2 * length, device=policy.device) * 7 + 3
    return (tokens % policy.vocabulary).view(2, length)


def packed_logits(policy: Policy, rows_RL: Tensor, layout: Packed) -> Tensor:
    """Return the logits (R, L, V) of rows packed end to end, the last token decoded after them."""
    rows, before = len(rows_RL), rows_RL.shape[1] - 1
    positions_RL = torch.arange(before, device=rows_RL.device).expand(rows, before)
    packed_1L = rows_RL[:, :-1].reshape(1, -1)
    hidden_1LD = policy.hidden(packed_1L, positions_RL.reshape(1, -1), layout)
    slots = Decoding()
    slots.reserve(rows, before + 1)
    slots.admit(layout.keep or {}, [before] * rows, [1] * rows, 0)
    ends_R = torch.full((rows,), before, device=rows_RL.device)
    slots.place(ends_R, before + 1)
    last_1RD = policy.hidden(rows_RL[None, :, -1], ends_R[None], slots)
    hidden_RLD = torch.cat((hidden_1LD.view(rows, before, -1), last_1RD.transpose(0, 1)), dim=1)
    return policy.logits(hidden_RLD.flatten(0, 1)).view(rows, before + 1, -1)


def cache_agrees(policy: Policy) -> bool:
    """Whether steps after the library's cache give what its forward gives for the whole row."""
    rows_RL = probe_rows(policy)
    end = rows_RL.shape[1] - 3  # the last steps are more than one
    with policy.without_gradients():
        whole_RLD = library_hidden(policy.model, rows_RL)
        try:
            _, cache = continued(policy.model, rows_RL[:, :end], None)
            cache = select(cache, torch.tensor([1, 0, 1], device=rows_RL.device))
            ends_3D = continued(policy.model, rows_RL[[1, 0, 1], end:], cache)[0]
        except (RuntimeError, TypeError, ValueError, AttributeError, LookupError):
            return False
        logits_3V = policy.logits(whole_RLD[[1, 0, 1], -1])
        nats = difference(policy.logits(ends_3D), logits_3V)
    return nats <= (BEHAVIOUR if is_exact(policy, logits_3V) else LOOSE)


def is_exact(policy: Policy, logits: Tensor) -> bool:
    """Whether nothing is computed more coarsely than in float32, whatever the number of rows."""
    return logits.dtype == torch.float32 and not any(map(is_packed, policy.model.modules()))


def difference(one: Tensor, other: Tensor) -> float:
    """Return how far two distributions of each token are apart, in nats; infinite for no numbers.

    That is the mean over what `other` may say, at the worst place in float32, and over all places
    where rounding is coarse.
    """
    logprobs, others = one.float().log_softmax(-1), other.float().log_softmax(-1)
    apart = (others.exp() * (logprobs - others).abs()).sum(-1)
    nats = float(apart.max() if one.dtype == torch.float32 else apart.mean())
    return nats if isfinite(nats) else inf


def window_of(config: Any, layer: int) -> int | None:
    """Return the window that a configuration gives a layer; None: it sees everything before."""
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return window if kinds[layer] == "sliding_attention" else None
    return window


@contextmanager
def attention_of(model: Any, name: str) -> Iterator[None]:
    """Compute attention by the library's function of that name inside the context."""
    try:
        library_attention(model, name)
        yield
    finally:
        model.config._attn_implementation = ATTENTION
