"""Frozen bases in few bits: NF4 by bitsandbytes, int8 by `int8_linear`, and folders stored in NF4.

Embeddings and head stay as they are. Left out: other bits, and training the base itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import safe_open
from torch import Tensor, nn

from offapi.adapter import not_finite
from offapi.errors import BackendError, ModelError
from offapi.model_spec import ModelSpec

from .int8_linear import GROUP, Int8Linear, from_int8
from .quantisers import Int8Config, Nf4Config
from .quiet_imports import import_bitsandbytes

DEVICES = ("cpu", "cuda")


def loading(spec: ModelSpec, device: torch.device) -> dict[str, Any]:
    """Return what `from_pretrained` needs besides for a base in few bits; empty for a float one.

    Raise BackendError for bits or a device that are not supported, or a library that is missing;
    ModelError for a base that is stored in few bits of another kind, or that is to be quantised
    twice, or whose weights are not finite.
    """
    stored = stored_method(spec.path)
    if stored:
        _check_stored(stored, spec)
    elif spec.quantize is None:
        return {}
    _check(spec, device)
    if stored or spec.quantize == 4:
        import_bitsandbytes()
    options: dict[str, Any] = {"device_map": {"": str(device)}}
    if stored:
        return options
    for name in unsound(spec.path):
        raise not_finite(name, spec)
    config = Nf4Config(getattr(torch, spec.dtype)) if spec.quantize == 4 else Int8Config()
    return {**options, "quantization_config": config}


def _check_stored(method: str, spec: ModelSpec) -> None:
    if method != "bitsandbytes":
        raise ModelError(
            f"torch cannot train on weights that are stored quantised by {method!r}.",
            where=str(spec.path / "config.json"),
            next_step="Use --backend mlx for MLX's weights, or the unquantised model.",
        )
    if spec.quantize is not None:
        raise ModelError(
            "the base model is quantised already.",
            where=str(spec.path),
            next_step="Load it without `quantize`.",
        )


def _check(spec: ModelSpec, device: torch.device) -> None:
    if spec.quantize not in (None, 4, 8):
        raise BackendError(
            f"`quantize` must be 4 (NF4) or 8 (int8) bits on torch, got {spec.quantize} bits.",
            next_step="Use one of them, or --backend mlx, which has 2, 3, 4, 5, 6 and 8.",
        )
    if device.type not in DEVICES:
        raise BackendError(
            f"torch has no base in few bits on device {device.type!r}.",
            next_step="Use device = 'cpu', or --backend mlx.",
        )
    if spec.full:
        raise BackendError(
            "weights in few bits cannot be trained themselves.",
            next_step="Leave out `quantize`, or leave out `full` to train an adapter.",
        )


def stored_method(path: Path) -> str:
    """Return by which method the weights of a model folder are stored quantised; "" if float."""
    try:
        config = orjson.loads((path / "config.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return ""  # transformers says what is wrong
    stored = config.get("quantization_config") or config.get("quantization")
    return str(stored.get("quant_method", "mlx")) if isinstance(stored, dict) else ""


def unsound(path: Path) -> Iterator[str]:
    """Yield the names of tensors in a model folder with numbers that are not finite.

    Packed, they would pass for numbers.
    """
    for file in sorted(path.glob("model*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                tensor = tensors.get_tensor(name)
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    yield name


def settle(model: Any, spec: ModelSpec) -> None:
    """Make a base that has NF4 layers compute in the spec's dtype, alike in and out of training.

    PEFT takes such layers for any others once the model does not say that it has them. Raise
    ModelError for stored layers that bitsandbytes would read wrong.
    """
    if not getattr(model, "is_loaded_in_4bit", False):
        return
    model.is_loaded_in_4bit, dtype = False, getattr(torch, spec.dtype)
    for path, layer in model.named_modules():
        if is_packed(layer):
            _check_layer(path, layer, spec)
            # Else bitsandbytes repacks weights for answers on some CPUs, computed in bfloat16.
            layer.support_avx512bf16_for_cpu = False
            layer.compute_dtype, layer.compute_type_is_set = dtype, True
            layer.weight.quant_state.dtype = dtype  # else gradients see rounded weights
    for parameter in model.parameters():  # a folder's others come in its own dtype
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _check_layer(path: str, layer: Any, spec: ModelSpec) -> None:
    if not _fits(layer):
        raise ModelError(
            f"the 4-bit weights of {path!r} do not have the sizes of the layer.",
            where=str(spec.path),
            next_step="Download or copy the model again.",
        )
    if layer.in_features % GROUP and layer.weight.device.type == "cpu":
        raise ModelError(
            f"the rows of {path!r} have {layer.in_features} weights, and bitsandbytes reads 4-bit"
            f" rows on the CPU only where {GROUP} divides them.",
            where=str(spec.path),
            next_step="Use a GPU, or the unquantised model.",
        )


def _fits(layer: Any) -> bool:
    """Whether a 4-bit layer's arrays have the sizes that bitsandbytes reads without looking."""
    state, count = layer.weight.quant_state, layer.out_features * layer.in_features
    if state is None or tuple(state.shape) != (layer.out_features, layer.in_features):
        return False
    blocks = -(-count // state.blocksize)
    sizes = [(layer.weight, -(-count // 2)), (state.absmax, blocks), (state.code, 16)]
    if state.nested:
        nested = -(-blocks // state.state2.blocksize)
        sizes += [(state.state2.absmax, nested), (state.state2.code, 256)]
    return all(array.numel() == size for array, size in sizes)


def is_packed(layer: Any) -> bool:
    """Whether `layer` is a linear layer with weights in few bits."""
    return isinstance(layer, nn.Linear) and not layer.weight.is_floating_point()


def float_weight(layer: Any) -> Tensor:
    """Return a linear layer's weight (out, in), dequantised in the dtype it computes in."""
    if not is_packed(layer):
        weight: Tensor = layer.weight
        return weight
    if isinstance(layer, Int8Linear):
        return from_int8(layer.weight, layer.scale, layer.compute_dtype)
    state = layer.weight.quant_state
    unpacked: Tensor = import_bitsandbytes().functional.dequantize_4bit(layer.weight, state)
    return unpacked.to(layer.compute_dtype)


def float_bytes(layer: Any) -> int:
    """Return the bytes of `float_weight`."""
    dtype = layer.compute_dtype if is_packed(layer) else layer.weight.dtype
    return int(layer.out_features * layer.in_features * dtype.itemsize)
