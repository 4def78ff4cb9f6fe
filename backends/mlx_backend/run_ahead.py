"""How far MLX may schedule operations ahead of the CPU that computes them.

Each result's memory is taken when it is scheduled, so some fifty operations hold theirs before they
run: half the memory of an update. At its memory limit MLX waits instead, which costs nothing while
the limit is above what the work itself needs, and doubles the time below. Left out: GPUs, which
MLX's own limit serves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx

from offapi.activation_memory import LOGIT, SCORE, Account, head_rows
from offapi.model_spec import ModelSpec

from .attention import BLOCK

SLACK = 1 << 26  # bytes of operations that may wait
SCORES, LOGITS = 6, 5  # numbers at once for each score of a block of queries, and for each logit


@dataclass(frozen=True)
class RunAhead:
    """What the work of one model needs at least; None: not known, and MLX is left as it is."""

    account: Account | None
    logit_rows: int

    @classmethod
    def of(cls, spec: ModelSpec) -> RunAhead:
        """Return it for the model of `spec`."""
        known = spec.activation_bytes is not None
        account = Account.of(spec.path, "mlx", spec.dtype) if known else None
        return cls(account, spec.limits.logit_rows)

    def needed(self, tokens: int, held: float) -> float:
        """Return the bytes of a micro-batch whose layers hold `held` numbers of each token."""
        assert self.account is not None
        sizes = self.account.sizes
        layer = tokens * (self.account.layer + SCORES * SCORE * sizes.heads * BLOCK)
        rows = min(head_rows(self.logit_rows, sizes.vocabulary), tokens)
        head = LOGITS * LOGIT * sizes.vocabulary * rows
        return tokens * held * self.account.width + max(layer, head)

    def training(self, tokens: int, recomputed: bool) -> float:
        """Return the same for one that is differentiated."""
        assert self.account is not None
        sizes, width = self.account.sizes, self.account.width
        inputs = sizes.layers * sizes.hidden
        return self.needed(tokens, inputs if recomputed else self.account.token / width)

    @contextmanager
    def held(self, tokens: int, recomputed: bool | None = None) -> Iterator[None]:
        """Schedule a micro-batch in what it needs, which is differentiated unless None is given."""
        if self.account is None or mx.default_device().type == mx.DeviceType.gpu:
            yield
            return
        needed = self.needed(tokens, 0) if recomputed is None else self.training(tokens, recomputed)
        with at_most(needed + SLACK):
            yield


@contextmanager
def at_most(size: float) -> Iterator[None]:
    """Let MLX schedule ahead while no more than `size` bytes are taken in addition."""
    whole = mx.set_memory_limit(0)
    mx.set_memory_limit(min(whole, mx.get_active_memory() + int(size)))
    try:
        yield
    finally:
        mx.set_memory_limit(whole)
