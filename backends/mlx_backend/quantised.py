"""Frozen bases in few bits, by MLX's own quantisation in groups of 64 with a scale and a bias each.

A layer is packed before the next is read from the file. Left out: other group sizes.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.utils import tree_unflatten

from offapi.adapter import not_finite
from offapi.errors import ModelError
from offapi.model_spec import ModelSpec

GROUP = 64  # mlx-lm's default
BITS = (2, 3, 4, 5, 6, 8)


def check_stored(config: dict[str, Any], spec: ModelSpec) -> None:
    """Raise ModelError for weights that are stored in few bits by another library than MLX."""
    stored = config.get("quantization_config")
    if stored and not config.get("quantization"):
        method = stored.get("quant_method", "another library")
        raise ModelError(
            f"MLX cannot train on weights that are stored quantised by {method!r}.",
            where=str(spec.path),
            next_step="Use --backend torch for bitsandbytes' weights, or the unquantised model.",
        )


def quantise(model: Any, config: dict[str, Any], spec: ModelSpec) -> None:
    """Pack every layer that can be packed, if `spec` asks for it.

    Raise ModelError for bits that MLX lacks, a base that is quantised already, or a weight that is
    not finite, which would pass for a number once it is packed.
    """
    if spec.quantize is None:
        return
    if config.get("quantization") or config.get("quantization_config"):
        raise ModelError(
            "the base model is quantised already.",
            where=str(spec.path),
            next_step="Load it without `quantize`.",
        )
    if spec.quantize not in BITS:
        raise ModelError(
            f"`quantize` must be {', '.join(map(str, BITS[:-1]))} or {BITS[-1]} bits on MLX, got"
            f" {spec.quantize} bits.",
            where=str(spec.path),
        )
    for path, layer in model.named_modules():
        if not getattr(layer, "to_quantized", None) or layer.weight.shape[-1] % GROUP:
            continue
        if not mx.isfinite(layer.weight).all().item():
            raise not_finite(f"{path}.weight", spec)
        packed = layer.to_quantized(group_size=GROUP, bits=spec.quantize)
        mx.eval(packed.parameters())
        model.update_modules(tree_unflatten([(path, packed)]))
