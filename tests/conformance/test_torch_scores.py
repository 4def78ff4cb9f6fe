"""Attention with a cap or sinks, in every layout of the torch backend, against the plain formula."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
packed = pytest.importorskip("offapi.backends.torch_backend.packed_attention")
caches = pytest.importorskip("offapi.backends.torch_backend.cache")
Scores = pytest.importorskip("offapi.backends.torch_backend.scores").Scores

HEADS, KV_HEADS, DIM, SCALE = 4, 2, 8, 0.7
SINKS = torch.tensor([0.5, -1.0, 2.0, 0.0])
KINDS = {"cap": (1.5, None), "sinks": (None, SINKS), "both": (1.5, SINKS)}


def expected(row: list[Any], kind: Any) -> Any:
    """One row's attention (1, heads, L, dim), in float64."""
    q, k, v = (x[0].double() for x in row)
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, dim=0) for x in (k, v))
    scores = q @ k.transpose(1, 2) * SCALE
    if kind.cap:
        scores = kind.cap * (scores / kind.cap).tanh()
    at, of = torch.arange(q.shape[1])[:, None], torch.arange(k.shape[1])[None]
    seen = (of <= at) & (of > at - (kind.window or 99))
    weights = scores.exp() * seen
    total = weights.sum(-1, keepdim=True)
    if kind.sinks_H is not None:
        total = total + kind.sinks_H.double().exp().view(-1, 1, 1)
    return (weights / total @ v)[None].float()


def drawn(length: int, seed: int) -> list[Any]:
    """Queries, keys and values of a row."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [HEADS, KV_HEADS, KV_HEADS]
    return [torch.randn(1, heads, length, DIM, generator=generator) for heads in sizes]


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_and_slots_have_the_models_scores(kind: str, window: int | None) -> None:
    scores = Scores(SCALE, window, *KINDS[kind])
    shared, tails = drawn(5, 0), [drawn(3, 1), drawn(6, 2)]
    whole = [
        [torch.cat(parts, dim=2) for parts in zip(shared, tail, strict=True)] for tail in tails
    ]
    wanted = [expected(row, scores) for row in whole]
    q, k, v = (torch.cat(parts, dim=2) for parts in zip(shared, *tails, strict=True))
    layout = packed.Packed(((5, (3, 6)),))
    rows = torch.cat((wanted[0], wanted[1][:, :, 5:]), dim=2)
    for way in (layout.by_rows, layout.by_rectangles):
        torch.testing.assert_close(way(0, q, k, v, scores), rows)
    slots = caches.Decoding()
    slots.reserve(2, 8)
    slots.follow({0: (shared[1], shared[2])}, 5)
    own = [torch.cat([tail[i][:, :, :-1] for tail in tails], dim=2) for i in (1, 2)]
    slots.admit({0: (own[0], own[1])}, [2, 5], [1, 1], 0)
    slots.place(torch.tensor([2, 5]), 6)
    last = [torch.cat([tail[i][:, :, -1:] for tail in tails], dim=2) for i in range(3)]
    ends = torch.cat([row[:, :, -1:] for row in wanted], dim=2)
    torch.testing.assert_close(slots.attend(0, *last, scores), ends)
