"""A function of rows that is differentiated while it is computed: D numbers a row are kept, not V.

Left out: functions whose results depend on more than their own row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

Head = Callable[[mx.array], mx.array]


def by_slopes(head: Head) -> Head:
    """Return `head`, (R, D) to (R,), whose backward pass is a product with its slopes (R, D).

    They are computed with the results, or never, if no gradient is asked for.
    """

    def whole(hidden_RD: mx.array) -> tuple[mx.array, mx.array]:
        results, slopes = mx.vjp(head, [hidden_RD], [mx.ones(hidden_RD.shape[0])])
        return results[0], slopes[0]

    function: Any = mx.custom_function(whole)

    @function.vjp  # type: ignore[untyped-decorator]
    def backward(_: Any, cotangents: Any, outputs: Any) -> mx.array:
        slope_RD: mx.array = (cotangents[0][:, None] * outputs[1]).astype(outputs[1].dtype)
        return slope_RD

    return lambda hidden_RD: function(hidden_RD)[0]
