"""The processes that `mlx.launch` started, as one group of `mx.distributed`: bytes and gradients.

The ring over TCP, or whichever of MLX's groups the launcher set up. Left out: who says what to whom
(`offapi.ranks`), and splitting one model over ranks.
"""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from offapi.launch import Launch

from .losses import Gradients
from .policy import Policy

PIECE = 67_108_864  # bytes that are sent at once
BUCKET = 16_777_216  # numbers that are summed at once


class Link:
    """The group of this launch; see `offapi.launch.RankLink`."""

    def __init__(self, launch: Launch) -> None:
        self.rank, self.size = launch.rank, launch.size

    def join(self) -> None:
        """Connect with the other ranks, at the addresses that the launcher's files name."""
        group = mx.distributed.init(strict=True)
        if (group.rank(), group.size()) != (self.rank, self.size):
            raise RuntimeError(f"MLX joined {group.size()} ranks as rank {group.rank()}")

    def broadcast(self, data: bytes) -> bytes:
        """Return what rank 0 gives: a sum to which the others add zeros."""
        length = int(_sum(np.array([len(data) if self.rank == 0 else 0]))[0])
        own = np.frombuffer(data, np.uint8) if self.rank == 0 else np.zeros(length, np.uint8)
        return b"".join(_sum(own[at : at + PIECE]).tobytes() for at in range(0, length, PIECE))

    def gather(self, data: bytes) -> list[bytes]:
        """Return what each rank gives, in the order of ranks."""
        lengths = _gather(np.array([len(data)]))[:, 0].tolist()
        padded = np.zeros(max(lengths), np.uint8)
        padded[: len(data)] = np.frombuffer(data, np.uint8)
        pieces = [_gather(padded[at : at + PIECE]) for at in range(0, len(padded), PIECE)]
        if not pieces:
            return [b""] * self.size
        rows = np.concatenate(pieces, axis=1)
        return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def sum_gradients(policy: Policy, gradients: Gradients) -> Gradients:
    """See `Backend.sum_gradients`. Return the sums."""
    if not _sum(np.array([float(bool(gradients))], np.float32))[0]:
        return gradients
    summed: Gradients = {}
    for names in _buckets({name: array.size for name, array in policy.parameters().items()}):
        shapes = {name: policy.parameters()[name].shape for name in names}
        flat = [
            np.array(gradients[name], np.float32).ravel()
            if name in gradients
            else np.zeros(int(np.prod(shape)), np.float32)
            for name, shape in shapes.items()
        ]
        ends = np.cumsum([len(part) for part in flat])[:-1]
        parts = np.split(_sum(np.concatenate(flat)), ends)
        for (name, shape), part in zip(shapes.items(), parts, strict=True):
            summed[name] = mx.array(part.reshape(shape))
    return summed


def _buckets(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Yield the names in order, about BUCKET numbers at a time."""
    bucket: list[str] = []
    for name in sorted(sizes):
        bucket.append(name)
        if sum(sizes[each] for each in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def _sum(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.array(mx.distributed.all_sum(mx.array(array)))


def _gather(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.array(mx.distributed.all_gather(mx.array(array)[None]))
