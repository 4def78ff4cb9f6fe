"""Which rows a step learns from, and at what learning rate.

Both depend on the step's number alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from offapi.randomness import order

T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """`epochs` passes over `rows` rows in batches of `batch_size`.

    The learning rate warms up linearly while it decays linearly to zero.
    """

    rows: int
    batch_size: int
    epochs: float
    lr: float
    warmup_steps: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Steps of one pass; the last batch may be smaller."""
        return math.ceil(self.rows / self.batch_size)

    @property
    def steps(self) -> int:
        """The number of optimizer steps, at least one."""
        return max(1, round(self.per_epoch * self.epochs))

    def lr_at(self, step: int) -> float:
        """Return the learning rate of the 0-based `step`."""
        return self.lr * min(1.0, (step + 1) / (self.warmup_steps + 1)) * (1.0 - step / self.steps)

    def batch_at(self, step: int, items: Sequence[T]) -> list[T]:
        """Return the rows of the 0-based `step`, in an order drawn anew each epoch."""
        epoch, place = divmod(step, self.per_epoch)
        chosen = order(self.seed, epoch, self.rows)[
            place * self.batch_size : (place + 1) * self.batch_size
        ]
        return [items[i] for i in chosen]
