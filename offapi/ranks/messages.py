"""What rank 0 asks of the others, and what they answer, as bytes: msgpack, and no pickle.

Left out: who sends them (`ranked_backend`), and who carries them out (`member`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from offapi.backend import By, Sampling
from offapi.completions import Group
from offapi.episodes import Episode
from offapi.model_spec import ModelSpec
from offapi.optimizer import AdamW, TrainState
from offapi.policy_loss import Experience, PolicyLoss

T = TypeVar("T")


class LoadModel(msgspec.Struct, frozen=True, tag=True):
    """LoadModel a model."""

    name: str
    spec: ModelSpec


class SampleGroups(msgspec.Struct, frozen=True, tag=True):
    """Answer some of the prompts; where `documents` are given, they bound the completions."""

    prompts: tuple[tuple[int, ...], ...]
    n: int
    sampling: Sampling
    keys: tuple[int, ...]
    documents: tuple[str | None, ...] | None


class Score(msgspec.Struct, frozen=True, tag=True):
    """Score some of the episodes."""

    episodes: tuple[Episode, ...]
    by: By
    temperature: float


class ForwardBackward(msgspec.Struct, frozen=True, tag=True):
    """Add the gradient of some of the batch."""

    batch: tuple[Episode, ...]


class PolicyGradient(msgspec.Struct, frozen=True, tag=True):
    """Add the gradient of some of the batch."""

    batch: tuple[Experience, ...]
    loss: PolicyLoss


class OptimStep(msgspec.Struct, frozen=True, tag=True):
    """Sum the gradients and step."""

    lr: float
    optimizer: AdamW


class Assist(msgspec.Struct, frozen=True, tag=True):
    """Take part in what rank 0 computes alone of a sharded model."""


class Restore(msgspec.Struct, frozen=True, tag=True):
    """Put a state in place."""

    state: TrainState


class Close(msgspec.Struct, frozen=True, tag=True):
    """Free the model."""


class Dismiss(msgspec.Struct, frozen=True, tag=True):
    """Nothing more will be asked."""


Command = (
    LoadModel
    | SampleGroups
    | Score
    | ForwardBackward
    | PolicyGradient
    | OptimStep
    | Assist
    | Restore
    | Close
    | Dismiss
)


class SampledGroups(msgspec.Struct, frozen=True):
    """The groups of a rank's prompts, and how many prompt tokens it ran through the model."""

    groups: tuple[Group, ...] = ()
    prefilled: int = 0


class Failed(msgspec.Struct, frozen=True):
    """Why a rank could not do what was asked; `code` is that of an OffapiError, or nothing."""

    what: str
    where: str = ""
    next_step: str = ""
    code: str = ""


class RankReply(msgspec.Struct, frozen=True):
    """A rank's answer: the encoded value, or why there is none."""

    value: bytes = b""
    failed: Failed | None = None


def encode(value: object) -> bytes:
    """Return `value` as bytes that `decode` reads."""
    return msgspec.msgpack.encode(value, enc_hook=_plain)


def decode(data: bytes, kind: type[T]) -> T:
    """Return the value of type `kind` that `data` holds."""
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_of_plain)


def decode_command(data: bytes) -> Command:
    """Return the command that `data` holds."""
    command: Command = msgspec.msgpack.decode(data, type=Command, dec_hook=_of_plain)
    return command


def _plain(value: Any) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return value.dtype.str, value.shape, value.tobytes()
    raise TypeError(f"{type(value).__name__} is nothing that ranks send each other")


def _of_plain(kind: type, value: Any) -> object:
    if kind is Path:
        return Path(value)
    dtype, shape, data = value
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape).copy()
