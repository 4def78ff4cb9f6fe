"""PEFT's names: of the files of an adapter, and of the parameters in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Shapes = Mapping[str, tuple[int, ...]]  # PEFT's parameter name -> shape in PEFT's layout

PREFIX = "base_model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
EXPORT_AGAIN = "Export the adapter again."
FIT = "Load the adapter on the base model that it was trained on."
MAGNITUDE = ".lora_magnitude_vector"  # DoRA's, without ".weight"


def parameter(module: str, matrix: str) -> str:
    """Return PEFT's name of matrix "A" or "B" of `module`, a dotted path of the model."""
    return f"{PREFIX}{module}.lora_{matrix}.weight"


def magnitude(module: str) -> str:
    """Return PEFT's name of the lengths of the rows of `module`, which DoRA trains."""
    return f"{PREFIX}{module}{MAGNITUDE}"


def module(name: str) -> str:
    """Return the dotted module path inside a PEFT parameter name."""
    return name.removeprefix(PREFIX).rsplit(".lora_", 1)[0]


def modules(names: Iterable[str]) -> list[str]:
    """Return the module paths of parameters, each once, in order."""
    return sorted({module(name) for name in names})
