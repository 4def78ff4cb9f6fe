"""The library's own forward and cache, for models whose tokens cannot stand in packed rows.

Layers that carry a state from token to token (recurrences, convolutions) would carry it from one
packed row into the next. Here rows of one length make a batch and need no padding. Left out: shared
prefixes in the graph, which only attention has.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from .sharded import run_base


def library_attention(model: Any, name: str | None = None) -> None:
    """Compute attention by the library's function of that `name`, or by its own choice."""
    model.config._attn_implementation = model.get_correct_attn_implementation(name)


def library_hidden(model: Any, tokens_RL: Tensor) -> Tensor:
    """Return the last hidden states (R, L, D) of rows that share nothing."""
    states: Tensor = run_base(model, input_ids=tokens_RL, use_cache=False).last_hidden_state
    return states


def continued(
    model: Any,
    tokens_RL: Tensor,
    cache: Any,
    step: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[Tensor, Any]:
    """Return the last hidden states (R, D) after the rows of `cache` and these tokens.

    The cache, None for an empty one, holds the tokens afterwards. Tokens after others are given one
    by one unless it holds keys and values alone: not every recurrence continues with several. Each
    pass is made in a `step`.
    """
    at_once = cache is None or all(only_keys(layer) for layer in cache.layers)
    steps = (tokens_RL,) if at_once else torch.split(tokens_RL, 1, dim=1)
    for next_RL in steps:
        name = _cache_name(model.base_model)
        given = {} if cache is None else {name: cache}
        with step():
            out = run_base(model, input_ids=next_RL, use_cache=True, **given)
        cache = out[name]
    return out.last_hidden_state[:, -1], cache


def _cache_name(base: Any) -> str:
    """Return what this version of transformers calls a base's cache."""
    return "cache" if "cache" in signature(base.forward).parameters else "past_key_values"


def only_keys(layer: Any) -> bool:
    """Whether a cache's layer holds keys and values and nothing else."""
    return not hasattr(layer, "conv_states") and not hasattr(layer, "recurrent_states")


def select(cache: Any, rows: Tensor) -> Any:
    """Return a cache of these `rows` of another, which may come more than once; copies."""
    chosen = copy.copy(cache)
    chosen.layers = [_copied(layer) for layer in cache.layers]
    chosen.reorder_cache(rows)
    return chosen


def _copied(layer: Any) -> Any:
    """Return a layer whose tables of states are its own; the states are replaced, not changed."""
    own = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict):
            setattr(own, name, dict(value))
    return own
