"""How transformers quantises while it reads: a tensor is packed before the next one is read.

So a float base is never whole in memory. Rows that do not divide into groups of 64 stay float:
bitsandbytes 0.50 reads such rows wrong on the CPU. Left out: storing what was packed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig
from transformers.core_model_loading import ConversionOps
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer, get_keys_to_not_convert
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from .int8_linear import GROUP, Int8Linear, to_int8

NF4, INT8 = "offapi_nf4", "offapi_int8"  # the methods' names inside transformers


def left_float(model: nn.Module) -> set[str]:
    """Return the paths of the linear layers that stay float: the head, and uneven rows."""
    uneven = {
        path
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer.in_features % GROUP
    }
    return uneven | set(get_keys_to_not_convert(model))


@register_quantization_config(NF4)
class Nf4Config(BitsAndBytesConfig):
    """Asks for NF4 with double quantisation (arXiv 2305.14314), computed in `dtype`."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        self.quant_method = NF4  # type: ignore[assignment]


@register_quantizer(NF4)
class Nf4Quantizer(Bnb4BitHfQuantizer):
    """Puts bitsandbytes' layers into a model before its weights are read."""

    def _process_model_before_weight_loading(self, model: Any, *args: Any, **kwargs: Any) -> None:
        self.quantization_config.llm_int8_skip_modules = sorted(left_float(model))
        super()._process_model_before_weight_loading(model, *args, **kwargs)


@register_quantization_config(INT8)
class Int8Config(QuantizationConfigMixin):
    """Asks for `Int8Linear` layers."""

    def __init__(self) -> None:
        super().__init__(quant_method=INT8)  # type: ignore[arg-type]


@register_quantizer(INT8)
class Int8Quantizer(HfQuantizer):
    """Puts `Int8Linear` layers into a model before its weights are read."""

    def param_needs_quantization(self, model: Any, param_name: str, **_: Any) -> bool:
        path = param_name.removesuffix(".weight")
        return path != param_name and isinstance(model.get_submodule(path), Int8Linear)

    def get_quantize_ops(self) -> ConversionOps:
        return _ToInt8()

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        kept = left_float(model)
        for path, layer in list(model.named_modules()):
            if type(layer) is nn.Linear and path not in kept:
                shape = layer.in_features, layer.out_features, layer.bias is not None
                model.set_submodule(path, Int8Linear(*shape, layer.weight.dtype))

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return True


class _ToInt8(ConversionOps):
    """A tensor as it was read, to what is kept of it."""

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        **_: Any,
    ) -> dict[str, list[Tensor]]:
        del source_patterns, target_patterns
        kept: dict[str, list[Tensor]] = {}
        for name, read in input_dict.items():
            weight, scale = to_int8(read[0] if isinstance(read, list) else read)
            kept |= {name: [weight], f"{name.removesuffix('weight')}scale": [scale]}
        return kept
