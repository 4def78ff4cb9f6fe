"""The memory a training token takes at the peak of its backward pass, from a model's sizes.

The forecast says it to people, and `offapi.backend.load` hands it to the backend, which may size
its micro-batches by it. Left out: weights, gradients and optimizer, which do not grow with tokens.
"""

from __future__ import annotations

from pathlib import Path

import orjson

# Numbers held at the peak of a backward pass, a token and layer, in hidden and in inner sizes: the
# growth of resident memory on three shapes of model (hidden 512 to 960, inner 1536 to 4096), within
# 5%.
HELD = {"torch": (10.0, 9.3), "mlx": (8.2, 5.5)}


def activation_bytes(folder: Path, backend_name: str, dtype: str) -> float:
    """Return the bytes a token of a micro-batch holds at the peak
    of its backward pass through the model in `folder`.
    """
    config = orjson.loads((folder / "config.json").read_bytes())
    hidden, inner = HELD.get(backend_name, HELD["torch"])
    numbers = hidden * config["hidden_size"] + inner * config["intermediate_size"]
    return float(numbers * config["num_hidden_layers"] * (4 if dtype == "float32" else 2))
