"""The attention that transformers calls in every layer; a layout says what each token may see.

There are two layouts: `Packed` rows to read or train on, and the slots of `Decoding`. Left out:
attention that is more than a softmax over keys in a window (`library_forward` has the rest).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from offapi.errors import BackendError

from .cache import Decoding
from .packed_attention import Packed
from .scores import Scores

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
    if attention_mask is not None:
        raise BackendError(
            "the model's attention needs a mask of its own, which packed rows do not support.",
            next_step="Use implementation = 'library'.",
        )
    scores = Scores(scaling, sliding_window, rest.get("softcap"), rest.get("s_aux"))
    layer: Any = module.layer_idx
    mixed = layout.attend(layer, query, key, value, scores)
    return mixed.transpose(1, 2), None
