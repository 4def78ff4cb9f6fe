"""AdamW whose moments take 8 bits between steps, by `offapi.moment_levels` in blocks of 256.

One parameter's moments at a time are float32, while torch's own AdamW moves it. Left out:
stochastic rounding, and moments shared between parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from offapi import moment_levels as levels


@dataclass(frozen=True, eq=False)
class PackedMoment:
    """One moment in 8 bits: the number of each level (blocks, 256), and each block's largest."""

    codes: Tensor
    largest: Tensor
    shape: torch.Size
    signed: bool

    @classmethod
    def of(cls, moment: Tensor, signed: bool) -> PackedMoment:
        """Pack a float32 moment; the last block is filled up with 0."""
        missing = -moment.numel() % levels.BLOCK
        blocks = torch.nn.functional.pad(moment.flatten(), (0, missing)).view(-1, levels.BLOCK)
        largest = blocks.abs().amax(1, keepdim=True)
        shares = blocks / torch.where(largest > 0, largest, 1)
        middle = levels.SIGNED_MIDPOINTS if signed else levels.UNSIGNED_MIDPOINTS
        codes = torch.bucketize(shares, _to(middle, shares), out_int32=True)
        if not signed:
            codes = torch.maximum(codes, (shares > 0).int())
        return cls(codes.to(torch.uint8), largest, moment.shape, signed)

    def floats(self) -> Tensor:
        """Return the moment in float32."""
        numbers = _to(levels.SIGNED if self.signed else levels.UNSIGNED, self.largest)
        blocks = numbers[self.codes.int()] * self.largest
        return blocks.flatten()[: self.shape.numel()].view(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes it takes."""
        return self.codes.nbytes + self.largest.nbytes


def _to(numbers: Any, like: Tensor) -> Tensor:
    return torch.from_numpy(numbers).to(like.device)


class PackedAdamW(torch.optim.AdamW):
    """torch's AdamW over moments that are packed between steps."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter by its gradient."""
        del closure
        for group in self.param_groups:
            for parameter in group["params"]:
                self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        held, gradient = self.state[parameter], parameter.grad
        assert gradient is not None  # `optimizer.step` has checked all
        step = held.get("step", torch.tensor(0.0))
        first, second = (
            floats(held[kind]) if kind in held else torch.zeros_like(parameter)
            for kind in ("exp_avg", "exp_avg_sq")
        )
        beta1, beta2 = group["betas"]
        adamw(
            [parameter],
            [gradient],
            [first],
            [second],
            [],
            [step],
            foreach=False,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        held.update(step=step, **packed({"exp_avg": first, "exp_avg_sq": second}))


def packed(moments: Mapping[str, Tensor]) -> dict[str, PackedMoment]:
    """Return one parameter's moments packed; the first has a sign."""
    return {kind: PackedMoment.of(each, kind == "exp_avg") for kind, each in moments.items()}


def floats(moment: Tensor | PackedMoment) -> Tensor:
    """Return a moment in float32, packed or not."""
    return moment.floats() if isinstance(moment, PackedMoment) else moment


def with_bits(optimizer: torch.optim.AdamW, bits: int) -> torch.optim.AdamW:
    """Return an optimizer of `bits` with the moments of this one, or this one if it has them."""
    if isinstance(optimizer, PackedAdamW) == (bits == 8):
        return optimizer
    kind = PackedAdamW if bits == 8 else torch.optim.AdamW
    (group,) = optimizer.param_groups
    other = kind(group["params"], lr=0.0, foreach=False)
    for parameter, held in optimizer.state.items():
        moments = {kind: floats(held[kind]) for kind in ("exp_avg", "exp_avg_sq")}
        if bits == 8:
            packed = {
                kind: PackedMoment.of(each, kind == "exp_avg") for kind, each in moments.items()
            }
        other.state[parameter] = {"step": held["step"], **(packed if bits == 8 else moments)}
    return other
