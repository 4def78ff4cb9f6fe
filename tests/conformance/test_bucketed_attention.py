"""Rows attended in rectangles give the same results and gradients as rows attended one by one."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
packed = pytest.importorskip("offapi.backends.torch_backend.packed_attention")
Scores = pytest.importorskip("offapi.backends.torch_backend.scores").Scores

TREES = {
    "alone": ((0, (7,)),),
    "ragged": ((0, (3, 1, 9, 17, 2)),),
    "tree": ((12, (4, 6, 1)),),
    "trees": (
        (5, (3, 8, 8, 20)),
        (30, (1, 2)),
        (0, (6,)),
        (7, (9, 2)),  # prefixes of 5 and 7 share a call
    ),
}


def draw(count: int, heads: int, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(1, heads, count, 8, generator=generator, dtype=torch.float64)
    return drawn.requires_grad_()


@pytest.mark.parametrize("window", [None, 1, 4])
# A pass that follows another shares nothing of its own.
@pytest.mark.parametrize(
    ("name", "earlier"), [*((name, 0) for name in TREES), ("alone", 11), ("ragged", 11)]
)
def test_rectangles_compute_what_rows_compute(name: str, earlier: int, window: int | None) -> None:
    trees = TREES[name]
    count = sum(shared + sum(lengths) for shared, lengths in trees)
    results = []
    for how in ("by_rows", "by_rectangles"):
        q, k, v = draw(count, 6, 0), draw(count, 2, 1), draw(count, 2, 2)
        before = (draw(earlier, 2, 3), draw(earlier, 2, 4)) if earlier else ()
        layout = packed.Packed(trees, prefix={0: before} if before else {})
        out = getattr(layout, how)(0, q, k, v, Scores(0.3, window))
        weights = draw(count, 6, 5).detach()
        (out * weights).sum().backward()
        results.append((out.detach(), *(x.grad for x in (q, k, v, *before))))
    for one, other in zip(*results, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("window", [None, 4])
def test_each_row_may_continue_a_prefix_of_its_own(window: int | None) -> None:
    """As each would alone, in rectangles and row by row."""
    lengths, befores = (3, 1, 9, 2), (5, 12, 1, 6)
    q, k, v = (draw(sum(lengths), heads, heads).detach() for heads in (6, 2, 2))
    before = [draw(sum(befores), 2, seed).detach() for seed in (3, 4)]
    together = packed.Packed(((0, lengths),), prefix={0: tuple(before)}, befores=befores)
    alone, start, place = [], 0, 0
    for length, size in zip(lengths, befores, strict=True):
        rows, own = (
            slice(start, start + length),
            tuple(x[:, :, place : place + size] for x in before),
        )
        layout = packed.Packed(((0, (length,)),), prefix={0: own})
        asked = (x[:, :, rows] for x in (q, k, v))
        alone.append(layout.by_rows(0, *asked, Scores(0.3, window)))
        start, place = start + length, place + size
    for how in ("by_rows", "by_rectangles"):
        out = getattr(together, how)(0, q, k, v, Scores(0.3, window))
        torch.testing.assert_close(out, torch.cat(alone, dim=2), atol=1e-12, rtol=1e-9)


def test_rows_of_similar_length_share_a_call() -> None:
    rows = [
        packed.PackedRow(0, 8),
        packed.PackedRow(8, 15),
        packed.PackedRow(23, 16),
        packed.PackedRow(39, 9, 0, 8),
        packed.PackedRow(48, 12, 0, 8),
    ]
    laid_out = packed.rectangles(rows, 0, None, torch.device("cpu"))
    assert sorted(part.shape[:2] for part in laid_out.parts) == [(1, 16), (2, 12), (2, 15)]


@pytest.mark.parametrize("window", [None, 1, 2, 4, 5, 6, 9, 40])
@pytest.mark.parametrize("shared", [0, 5])
def test_a_decoded_token_sees_as_many_keys_as_its_window(shared: int, window: int | None) -> None:
    """Its own key is the last of them, and the shared keys come before its row's own."""
    decoding = pytest.importorskip("offapi.backends.torch_backend.cache").Decoding
    lengths, dim = [1, 3, 7], 8
    own_k, own_v = draw(sum(lengths), 2, 1).detach(), draw(sum(lengths), 2, 2).detach()
    q, k, v = (
        draw(len(lengths), heads, 10 + heads + i).detach() for i, heads in enumerate((6, 2, 2))
    )
    cache = decoding(room=3, capacity=9, shared=shared)
    if shared:
        cache.prefix[0] = (draw(shared, 2, 3).detach(), draw(shared, 2, 4).detach())
    cache.admit({0: (own_k, own_v)}, lengths, [1] * len(lengths), 0)
    cache.place(torch.tensor(lengths), max(lengths) + 1)
    found = cache.attend(0, q, k, v, Scores(0.3, window))
    starts = [0, 1, 4]
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        parts = [
            (own[0, :, start : start + length], new[0, :, row : row + 1])
            for own, new in ((own_k, k), (own_v, v))
        ]
        before = cache.prefix.get(0, (own_k[:, :, :0], own_v[:, :, :0]))
        keys, values = (
            torch.cat((first[0], *rest), dim=1)[:, -(window or 99) :].repeat_interleave(3, dim=0)
            for first, rest in zip(before, parts, strict=True)
        )
        scores = (keys @ q[0, :, row, :, None])[..., 0] * 0.3
        expected = (scores.softmax(-1)[..., None] * values).sum(1)
        assert expected.shape == (6, dim)
        torch.testing.assert_close(found[0, :, row], expected, atol=1e-6, rtol=1e-5)
