"""Moments in 8 bits between steps, by `offapi.moment_levels` in blocks of 256.

Left out: stochastic rounding, and moments shared between parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import mlx.core as mx

from offapi import moment_levels as levels


@dataclass(frozen=True, eq=False)
class PackedMoment:
    """One moment in 8 bits: the number of each level (blocks, 256), and each block's largest."""

    codes: mx.array
    largest: mx.array
    shape: tuple[int, ...]
    signed: bool

    @classmethod
    def of(cls, moment: mx.array, signed: bool) -> PackedMoment:
        """Pack a float32 moment, and compute it; the last block is filled up with 0."""
        missing = -moment.size % levels.BLOCK
        blocks = mx.pad(moment.reshape(-1), (0, missing)).reshape(-1, levels.BLOCK)
        largest = mx.abs(blocks).max(axis=1, keepdims=True)
        shares = blocks / mx.where(largest > 0, largest, 1)
        middle = levels.SIGNED_MIDPOINTS if signed else levels.UNSIGNED_MIDPOINTS
        codes = mx.searchsorted(mx.array(middle), shares)
        if not signed:
            codes = mx.maximum(codes, (shares > 0).astype(codes.dtype))
        packed = cls(codes.astype(mx.uint8), largest, tuple(moment.shape), signed)
        mx.eval(packed.codes, packed.largest)
        return packed

    def floats(self) -> mx.array:
        """Return the moment in float32."""
        numbers = mx.array(levels.SIGNED if self.signed else levels.UNSIGNED)
        blocks = numbers[self.codes] * self.largest
        return blocks.reshape(-1)[: prod(self.shape)].reshape(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes it takes."""
        return int(self.codes.nbytes + self.largest.nbytes)


def pack(moments: dict[str, mx.array]) -> dict[str, mx.array | PackedMoment]:
    """Return one parameter's moments {"m", "v"} packed."""
    return {"m": PackedMoment.of(moments["m"], True), "v": PackedMoment.of(moments["v"], False)}


def floats(moments: Mapping[str, mx.array | PackedMoment]) -> dict[str, mx.array]:
    """Return one parameter's moments in float32, packed or not."""
    return {
        kind: moment.floats() if isinstance(moment, PackedMoment) else moment
        for kind, moment in moments.items()
    }
