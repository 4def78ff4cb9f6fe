"""All random numbers, from NumPy's counter-based Philox: no backend or restart changes them."""

from __future__ import annotations

import hashlib

import numpy as np

from offapi.episodes import Floats


def _generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """Return a generator for (seed, purpose, counters) alone (Philox: Salmon et al., SC 2011)."""
    digest = hashlib.sha256(purpose.encode()).digest()
    key = np.array([seed & (2**64 - 1), int.from_bytes(digest[:8], "little")], dtype=np.uint64)
    counter = np.array([0, *counters, *[0] * (3 - len(counters))], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def uniforms(seed: int, step: int, prompt: int, sample: int, count: int) -> Floats:
    """Return `count` uniforms in [0, 1), one per sampled token of one completion, shape (T,)."""
    return _generator(seed, "rollout", sample, prompt, step).random(count, dtype=np.float32)


def lora_matrices(
    seed: int, module: str, rank: int, in_features: int, out_features: int
) -> tuple[Floats, Floats]:
    """Return the initial A (rank, in) and B (out, rank) of `module`.

    `module` is a dotted path such as `model.layers.0.mlp.up_proj`. A is uniform in ±1/sqrt(in),
    PEFT's default (Kaiming with a = sqrt 5); B is zero.
    """
    bound = 1.0 / np.sqrt(in_features)
    draw = _generator(seed, f"lora:{module}").random((rank, in_features), dtype=np.float32)
    a = ((2.0 * draw - 1.0) * bound).astype(np.float32)
    return a, np.zeros((out_features, rank), dtype=np.float32)


def order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    """Return the order in which `count` rows are visited in `epoch`."""
    return tuple(int(i) for i in _generator(seed, "order", epoch).permutation(count))
