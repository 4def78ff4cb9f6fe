"""Rows attended in rectangles give the same results and gradients as rows attended one by one."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
packed = pytest.importorskip("offapi.backends.torch_backend.packed_attention")

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
        out = getattr(layout, how)(0, q, k, v, 0.3, window)
        weights = draw(count, 6, 5).detach()
        (out * weights).sum().backward()
        results.append((out.detach(), *(x.grad for x in (q, k, v, *before))))
    for one, other in zip(*results, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


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
