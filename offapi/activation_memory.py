"""The memory that training and sampling take on top of a loaded model, from the model's sizes.

The forecast reports it, and the backends decide by it whether layers are computed again. A few
factors for each backend are fitted to the peak of a process's resident memory. Left out: the
weights themselves, which are measured once they are loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

MARGIN = 0.8  # the share of the free memory that a micro-batch may take with all it keeps
TRAINED = 12  # bytes of a trained number next to itself: its gradient, and AdamW's two moments
BLOCK = 128  # queries whose scores are computed at a time, where they are stored
LOGIT = SCORE = 4  # bytes: logits and attention scores are float32
CHUNK, FEWEST = 1 << 24, 64  # bytes of logits at a time; fewer rows would slow their product


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a model that its memory follows, each in numbers a token."""

    layers: int
    hidden: int
    inner: int  # of a feed-forward layer; of all experts that a token goes through
    heads: int
    queries: int  # of all heads
    keys: int  # of all key heads; values have as many
    vocabulary: int

    @classmethod
    def read(cls, folder: Path) -> ModelSizes:
        """Read a model's `config.json`; raise OSError, ValueError or KeyError where it lacks one.

        ModelSizes that differ between layers (Gemma 3n, 4) count as in the widest.
        """
        config: dict[str, Any] = orjson.loads((folder / "config.json").read_bytes())
        config = config.get("text_config") or config
        hidden: int = config["hidden_size"]
        heads: int = config.get("num_attention_heads") or 1
        size = config.get("head_dim") or hidden // heads
        key_heads = config.get("num_key_value_heads") or heads
        inner = config["intermediate_size"]
        inner = max(inner) if isinstance(inner, list) else inner
        expert = config.get("moe_intermediate_size") or 0
        experts = config.get("num_experts_per_tok") or 0
        return cls(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            inner=expert * experts or inner,
            heads=heads,
            queries=heads * size,
            keys=key_heads * size,
            vocabulary=config.get("vocab_size", 0),
        )


@dataclass(frozen=True)
class Factors:
    """What a backend takes at its peak, fitted within 20% to models of hidden sizes 512 to 1024.

    The first three are numbers that a layer holds per token until its backward pass, by what they
    are as wide as. Freed blocks that the C library keeps are part of them.
    """

    hidden: float
    attention: float  # as wide as queries and keys together
    inner: float
    layer: float  # what a layer takes while it is differentiated, in what it holds
    again: float  # the same where it is computed again for that
    scores: float  # numbers for each attention score of a block of queries
    head: float  # numbers for each logit of the rows that are computed at a time
    chunked: bool  # whether fewer rows are computed at a time where the vocabulary is wide


def head_rows(most: int, vocabulary: int) -> int:
    """Return how many rows of the head are computed at a time, where they are `chunked`."""
    return min(most, max(FEWEST, CHUNK // (LOGIT * vocabulary)))


FACTORS = {
    "torch": Factors(
        hidden=13.0,
        attention=2.4,
        inner=4.2,
        layer=0.8,
        again=0.9,
        scores=0.0,
        head=2.0,
        chunked=False,
    ),
    "mlx": Factors(
        hidden=4.6,
        attention=2.3,
        inner=4.6,
        layer=1.2,
        again=2.4,
        scores=6.0,
        head=5.0,
        chunked=True,
    ),
}


@dataclass(frozen=True)
class Account:
    """What the work of one model takes on one backend, in bytes; its numbers have `width` bytes."""

    sizes: ModelSizes
    factors: Factors
    width: int

    @classmethod
    def of(cls, folder: Path, backend_name: str, dtype: str) -> Account:
        """Return the account of the model in `folder`; raise what `ModelSizes.read` raises."""
        factors = FACTORS.get(backend_name, FACTORS["torch"])
        return cls(ModelSizes.read(folder), factors, 4 if dtype == "float32" else 2)

    @property
    def layer(self) -> float:
        """What a layer holds of one training token until its backward pass."""
        factors, sizes = self.factors, self.sizes
        attention = factors.attention * (sizes.queries + sizes.keys)
        numbers = factors.hidden * sizes.hidden + attention + factors.inner * sizes.inner
        return numbers * self.width

    @property
    def token(self) -> float:
        """What all layers hold of one training token."""
        return self.sizes.layers * self.layer

    def training(self, tokens: int, longest: int, logit_rows: int, recomputed: bool) -> float:
        """Return the peak of a micro-batch of `tokens` tokens, in rows of at most `longest`.

        All layers hold what their backward passes need, or their inputs alone; then the head
        computes the logits of `logit_rows` tokens, or a layer is differentiated.
        """
        sizes, factors = self.sizes, self.factors
        held = sizes.layers * sizes.hidden * self.width if recomputed else self.token
        layer = self.layer * (factors.again if recomputed else factors.layer)
        scores = factors.scores * sizes.heads * min(longest, BLOCK) * SCORE
        within = tokens * (layer + scores)
        rows = head_rows(logit_rows, sizes.vocabulary) if factors.chunked else logit_rows
        return tokens * held + max(within, self.head(min(rows, tokens)))

    def sampling(self, rows: int, own: int, shared: int) -> float:
        """Return the peak of decoding `rows` rows of `own` tokens after `shared` ones."""
        cached = 2 * self.sizes.layers * self.sizes.keys * self.width
        return float(cached * (rows * own + shared)) + self.head(rows)

    def head(self, rows: int) -> float:
        """Return what the head takes for the logits of `rows` tokens."""
        return rows * self.sizes.vocabulary * LOGIT * self.factors.head


def activation_bytes(folder: Path, backend_name: str, dtype: str) -> float:
    """Return the bytes per token that a backward pass through the model in `folder` needs."""
    return Account.of(folder, backend_name, dtype).token


@dataclass(frozen=True)
class FreeMemory:
    """Whether a micro-batch's layers are recomputed: as asked, or where memory does not hold them.

    `token` is what a training token keeps, in bytes, None if that is not known; `free` is the
    memory left once the model is loaded, of which `trained` numbers take their gradient and
    moments. A plan and a backend decide by this alone.
    """

    asked: bool | None
    token: float | None
    free: float
    trained: int = 0

    def recomputes(self, tokens: int) -> bool:
        """Whether the layers of a micro-batch of `tokens` tokens are recomputed."""
        if self.asked is not None:
            return self.asked
        if self.token is None:
            return False
        return tokens * self.token + self.trained * TRAINED > MARGIN * self.free
