"""Which tokens top_k, top_p and min_p leave: the same on both backends, as float64 says.

Logits of a bfloat16 model have many ties; those of a large vocabulary have a long flat tail.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import oracle
import pytest
from numpy.typing import NDArray

from offapi.backend import Sampling

VOCABULARY = 49_152
KINDS: dict[str, dict[str, Any]] = {
    "half": {"top_p": 0.5},
    "nine tenths": {"top_p": 0.9},
    "nearly all": {"top_p": 0.99},
    "after top_k": {"top_p": 0.9, "top_k": 50},
    "after top_k, nearly all": {"top_p": 0.999, "top_k": 200},
    "top_k alone": {"top_k": 20},
    "min_p alone": {"min_p": 0.05},
    "before min_p": {"top_p": 0.95, "min_p": 0.02},
    "all": {"top_k": 300, "top_p": 0.9, "min_p": 0.01},
}


def rounded(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut to bfloat16, as a model of that precision gives them."""
    return (logits.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def draws(scale: float, *, bfloat16: bool, rows: int = 20) -> NDArray[np.float32]:
    logits = np.random.default_rng(5).standard_normal((rows, VOCABULARY)) * scale
    return rounded(logits.astype(np.float32)) if bfloat16 else logits.astype(np.float32)


def left(
    backend_name: str, logits_RV: NDArray[np.float32], sampling: Sampling
) -> NDArray[np.bool_]:
    """Return the sampling mask that a backend gives for the logits."""
    choose = import_module(f"offapi.backends.{backend_name}_backend.sampling").choose
    array = import_module({"torch": "torch", "mlx": "mlx.core"}[backend_name])
    make = array.tensor if backend_name == "torch" else array.array
    mask_RV = choose(make(logits_RV), sampling, make([0.5] * len(logits_RV)))[2]
    return np.array(mask_RV.tolist())


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_tokens_left_are_those_of_float64(
    backend_name: str, kind: str, scale: float, bfloat16: bool
) -> None:
    """Both equal the oracle, so each equals the other."""
    sampling = Sampling(max_tokens=1, stop_ids=(), temperature=1.0, **KINDS[kind])
    logits_RV = draws(scale, bfloat16=bfloat16)
    kept_RV = left(backend_name, logits_RV, sampling)
    for logits_V, kept_V in zip(logits_RV, kept_RV, strict=True):
        expected_V = np.isfinite(oracle.sampled(logits_V.astype(np.float64), sampling))
        np.testing.assert_array_equal(kept_V, expected_V)
    assert (kept_RV.sum(axis=1) > 1).all()
    assert (kept_RV.sum(axis=1) < VOCABULARY).all()


TIES: list[tuple[list[float], dict[str, Any], list[int]]] = [
    # ten equal tokens: the first ids, as many as reach the share
    ([0.0] * 10, {"top_p": 0.35}, [0, 1, 2, 3]),
    ([0.0] * 10, {"top_p": 0.4}, [0, 1, 2, 3]),
    ([0.0] * 10, {"top_p": 0.401}, [0, 1, 2, 3, 4]),
    ([0.0] * 10, {"top_p": 1e-12}, [0]),
    # the likelier first, wherever they are
    ([0.0, 0.0, 3.0, 0.0], {"top_p": 0.9}, [0, 2]),
    ([0.0, 0.0, 3.0, 0.0], {"top_p": 0.97}, [0, 1, 2, 3]),
    ([-1.0, 2.0, -1.0, 2.0, -1.0], {"top_p": 0.9}, [1, 3]),
    ([-1.0, 2.0, -1.0, 2.0, -1.0], {"top_p": 0.95}, [0, 1, 3]),
    # top_k keeps all ties at its edge, and top_p takes the first of them
    ([1.0, 0.0, 0.0, 0.0, -5.0], {"top_k": 2}, [0, 1, 2, 3]),
    ([1.0, 0.0, 0.0, 0.0, -5.0], {"top_k": 2, "top_p": 0.5}, [0, 1]),
    ([1.0, 0.0, 0.0, 0.0, -5.0], {"top_k": 2, "top_p": 0.7}, [0, 1, 2]),
    ([1.0, 0.0, 0.0, 0.0, -5.0], {"top_k": 2, "top_p": 0.9}, [0, 1, 2, 3]),
    # min_p keeps all ties at its edge
    ([1.0, 0.0, 0.0, -1.0], {"min_p": 0.36}, [0, 1, 2]),
    ([1.0, 0.0, 0.0, -1.0], {"min_p": 1.0}, [0]),
    ([1.0, 0.0, 1.0, -1.0], {"min_p": 1.0}, [0, 2]),
]


@pytest.mark.parametrize(("logits", "truncation", "expected"), TIES)
def test_ties_are_taken_by_id(
    backend_name: str, logits: list[float], truncation: dict[str, Any], expected: list[int]
) -> None:
    sampling = Sampling(max_tokens=1, stop_ids=(), temperature=1.0, **truncation)
    kept_RV = left(backend_name, np.array([logits] * 3, np.float32), sampling)
    assert [np.flatnonzero(kept_V).tolist() for kept_V in kept_RV] == [expected] * 3
