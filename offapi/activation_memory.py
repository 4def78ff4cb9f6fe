"""The memory that a training token takes at the peak of its backward pass, from a model's sizes.

The forecast reports it, and `offapi.backend.load` hands it to the backend, which may size its
micro-batches by it, and recomputes the layers of those that memory would not hold. Left out:
weights, gradients and optimizer, which do not grow with tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

# Numbers held per token and layer at the peak, in hidden and in inner sizes. Fitted within 5% to
# the resident memory of three models (hidden 512 to 960, inner 1536 to 4096).
HELD = {"torch": (10.0, 9.3), "mlx": (8.2, 5.5)}
# What one layer takes while it is recomputed and differentiated, in what it would have held. torch:
# fitted to rows of 2,048 tokens, 8 and 28 layers (scripts/bench/memory.py); mlx: not measured.
ONE_LAYER = {"torch": 1.02, "mlx": 2.2}
MARGIN = 0.8  # the share of the free memory that a micro-batch may take with all it keeps


@dataclass(frozen=True)
class FreeMemory:
    """Whether a micro-batch's layers are recomputed: as asked, or where memory does not hold them.

    `token` is what a training token keeps, in bytes, None if that is not known; `free` is the
    memory left after the weights.
    """

    asked: bool | None
    token: float | None
    free: float

    def recomputes(self, tokens: int) -> bool:
        """Whether the layers of a micro-batch of `tokens` tokens are recomputed."""
        if self.asked is not None:
            return self.asked
        return self.token is not None and tokens * self.token > MARGIN * self.free


def activation_bytes(folder: Path, backend_name: str, dtype: str) -> float:
    """Return the bytes per token at the peak of a backward pass through the model in `folder`."""
    layers, _, layer = _numbers(folder, backend_name)
    return layers * layer * _width(dtype)


def recomputed_bytes(folder: Path, backend_name: str, dtype: str) -> float:
    """Return the same where layers are recomputed: each one's input, and what one of them takes."""
    layers, hidden, layer = _numbers(folder, backend_name)
    return (layers * hidden + ONE_LAYER.get(backend_name, 2.2) * layer) * _width(dtype)


def _numbers(folder: Path, backend_name: str) -> tuple[int, int, float]:
    """Return the layers, the hidden size, and the numbers that a layer holds per token."""
    config = orjson.loads((folder / "config.json").read_bytes())
    config = config.get("text_config") or config
    hidden, inner = HELD.get(backend_name, HELD["torch"])
    size: int = config["hidden_size"]
    widths = config["intermediate_size"]  # of each layer, in Gemma 3n
    width = max(widths) if isinstance(widths, list) else widths
    held = hidden * size + inner * width
    return config["num_hidden_layers"], size, held


def _width(dtype: str) -> float:
    return 4.0 if dtype == "float32" else 2.0
