"""Adapter and optimizer as exact copies and back. Left out: files, which the core writes."""

from __future__ import annotations

from offapi.adapter import check_state
from offapi.optimizer import TrainState

from .optimizer import Moments
from .packed_moments import floats
from .policy import Policy, shapes, to_mlx, to_peft


def state(policy: Policy, moments: Moments, step: int) -> TrainState:
    """Return everything that exact resume needs, in PEFT's names and layout."""
    unpacked = {name: floats(moment) for name, moment in moments.items()}
    exp_avg = {name: moment["m"] for name, moment in unpacked.items()}
    exp_avg_sq = {name: moment["v"] for name, moment in unpacked.items()}
    return TrainState(
        adapter=to_peft(policy.parameters()),
        exp_avg=to_peft(exp_avg),
        exp_avg_sq=to_peft(exp_avg_sq),
        step=step,
    )


def restore(policy: Policy, saved: TrainState) -> Moments:
    """Put `saved` in place and return its moments.

    Raise BackendError, and change nothing, when it does not fit.
    """
    check_state(saved, shapes(policy))
    policy.assign(to_mlx(saved.adapter))
    first, second = to_mlx(saved.exp_avg), to_mlx(saved.exp_avg_sq)
    return {name: {"m": first[name], "v": second[name]} for name in first}
