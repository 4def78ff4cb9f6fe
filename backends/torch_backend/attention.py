"""The attention that transformers calls in every layer: over what a layout says each token may see.

Two layouts: `Packed` rows to read or train on, and the slots of `Decoding`. Left out: attention
that is more than a softmax over keys in a window.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from offapi.errors import BackendError

from .cache import Decoding
from .packed_attention import Packed

Layout = Packed | Decoding


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    layout: Layout,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """(1, heads, T, dim) in, (1, T, heads, dim) out.

    Raises BackendError for an architecture that needs more.
    """
    odd = [name for name in ("softcap", "s_aux") if rest.get(name) is not None]
    if odd or attention_mask is not None:
        raise BackendError(
            f"this architecture's attention needs {odd or 'a mask of its own'}.",
            next_step="Use another.",
        )
    layer: Any = module.layer_idx
    return layout.attend(layer, query, key, value, scaling, sliding_window).transpose(1, 2), None
