"""The attention that transformers calls in every layer; a layout says what each token may see.

There are two layouts: `Packed` rows to read or train on, and the slots of `Decoding`. Left out:
attention that is more than a softmax over keys in a window.
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
    """Attend as the layout says: (1, heads, L, head_dim) in, (1, L, heads, head_dim) out.

    Raise BackendError for an architecture that needs more.
    """
    extras = [name for name in ("softcap", "s_aux") if rest.get(name) is not None]
    if extras or attention_mask is not None:
        what = " and ".join(extras) or "a mask of its own"
        raise BackendError(
            f"the model's attention needs {what}, which the torch backend does not support.",
            next_step="Use a model of another architecture.",
        )
    layer: Any = module.layer_idx
    return layout.attend(layer, query, key, value, scaling, sliding_window).transpose(1, 2), None
