"""Turns and observations as JSON, between the trainer and an episode's process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from offapi.tools.calls import MalformedCall, Observation, ToolCall, Turn


def write_turn(turn: Turn) -> dict[str, Any]:
    """Return `turn` as JSON values."""
    calls = [[call.id, call.name, dict(call.arguments)] for call in turn.calls]
    malformed = [[each.text, each.why] for each in turn.malformed]
    return {"text": turn.text, "calls": calls, "malformed": malformed}


def read_turn(turn: Mapping[str, Any]) -> Turn:
    """Return the turn that `write_turn` wrote."""
    calls = tuple(ToolCall(*each) for each in turn["calls"])
    return Turn(turn["text"], calls, tuple(MalformedCall(*each) for each in turn["malformed"]))


def write_observation(observation: Observation) -> dict[str, Any]:
    """Return `observation` as JSON values; NaN as a reward is refused."""
    reward = float(observation.reward)
    if not math.isfinite(reward):
        raise ValueError(f"a turn's reward must be a finite number, got {reward}")
    return {
        "messages": [dict(message) for message in observation.messages],
        "done": bool(observation.done),
        "reward": reward,
        "errors": int(observation.errors),
        "seconds": float(observation.seconds),
    }


def read_observation(observation: Mapping[str, Any]) -> Observation:
    """Return the observation that `write_observation` wrote."""
    messages: Sequence[Mapping[str, Any]] = observation["messages"]
    return Observation(
        tuple(messages),
        done=observation["done"],
        reward=observation["reward"],
        errors=observation["errors"],
        seconds=observation["seconds"],
    )
