"""Rows attended side by side give what they give one by one, and the same gradients."""

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
        (7, (9, 2)),
    ),  # prefixes of 5 and 7 share a call
}


def draw(count: int, heads: int, seed: int) -> Any:
    made = torch.randn(
        1, heads, count, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return made.requires_grad_()


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize(
    ("name", "earlier"), [*((name, 0) for name in TREES), ("alone", 11), ("ragged", 11)]
)  # a pass after another shares nothing of its own
def test_rectangles_give_what_rows_give(name: str, earlier: int, window: int | None) -> None:
    trees = TREES[name]
    count = sum(shared + sum(lengths) for shared, lengths in trees)
    found = []
    for how in ("by_rows", "by_rectangles"):
        q, k, v = draw(count, 6, 0), draw(count, 2, 1), draw(count, 2, 2)
        before = (draw(earlier, 2, 3), draw(earlier, 2, 4)) if earlier else ()
        layout = packed.Packed(trees, prefix={0: before} if before else {})
        out = getattr(layout, how)(0, q, k, v, 0.3, window)
        weights = draw(count, 6, 5).detach()
        (out * weights).sum().backward()
        found.append((out.detach(), *(x.grad for x in (q, k, v, *before))))
    for one, other in zip(*found, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def test_rows_of_like_length_share_a_call() -> None:
    rows = [
        packed.PackedRow(0, 8),
        packed.PackedRow(8, 15),
        packed.PackedRow(23, 16),
        packed.PackedRow(39, 9, 0, 8),
        packed.PackedRow(48, 12, 0, 8),
    ]
    made = packed.rectangles(rows, 0, None, torch.device("cpu"))
    assert sorted(part.shape[:2] for part in made.parts) == [(1, 16), (2, 12), (2, 15)]
