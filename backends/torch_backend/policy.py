"""The model in torch: base weights through transformers, LoRA through PEFT, attention through `cache.attend`.

Left out: quantised bases (no format of theirs runs on every torch device), sharding over
devices, and architectures whose attention is more than softmax over keys in a window.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import AttentionInterface

from offapi import adapter as adapters
from offapi.backend import Arrays, LoraSpec, Memory, ModelSpec
from offapi.errors import BackendError, ModelError, nearest
from offapi.randomness import lora_matrices

from .cache import Layout, attend

ATTENTION = "offapi"
BASE = "Load it on the base model it was trained on."
AttentionInterface.register(ATTENTION, attend)


@dataclass
class Policy:
    """The loaded model and what training it needs. Mutable: gradients and moments live here."""

    model: Any  # a transformers causal LM with LoRA layers injected
    device: torch.device
    spec: ModelSpec
    lora: dict[str, nn.Parameter]  # PEFT's parameter name -> fp32 parameter
    scale: float = 0.0  # alpha / rank of the adapter
    optimizer: torch.optim.AdamW | None = None
    steps: int = 0
    prefilled_tokens: int = field(default=0)
    initial: dict[str, Tensor] = field(default_factory=dict)  # the loaded adapter: the reference of what it becomes

    def hidden(self, tokens: Tensor, positions: Tensor, layout: Layout) -> Tensor:
        """Last hidden states, shape (1, T, D), of packed `tokens` (1, T)."""
        out = self.model.model(input_ids=tokens, position_ids=positions, use_cache=False, layout=layout)
        states: Tensor = out.last_hidden_state
        return states

    @property
    def head(self) -> Tensor:
        """Output embedding, shape (V, D)."""
        weight: Tensor = self.model.get_output_embeddings().weight
        return weight

    @contextmanager
    def scored_by_reference(self) -> Iterator[None]:
        """Inside, the adapter is the one that was loaded, or off where it was drawn fresh."""
        if self.initial:
            with self._swapped():
                yield
            return
        layers = [layer for layer in self.model.modules() if isinstance(layer, BaseTunerLayer)]
        try:
            for layer in layers:
                layer.enable_adapters(False)
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        current = {name: parameter.data for name, parameter in self.lora.items()}
        try:
            for name, parameter in self.lora.items():
                parameter.data = self.initial[name]
            yield
        finally:
            for name, parameter in self.lora.items():
                parameter.data = current[name]


def load_policy(spec: ModelSpec) -> Policy:
    """Load base and adapter. Raises BackendError for a device or dtype it lacks, ModelError for a bad folder."""
    if spec.quantize is not None:
        raise BackendError("torch has no quantised base here.", next_step="Drop `quantize`, or use --backend mlx.")
    device = choose_device(spec.device)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            spec.path,
            dtype=getattr(torch, spec.dtype),
            attn_implementation=ATTENTION,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"cannot be loaded: {error}", where=str(spec.path), next_step="offapi models verify"
        ) from error
    model.requires_grad_(False)
    lora = inject(model, spec)
    model.to(device).train(False)
    initial = {name: parameter.data.clone() for name, parameter in lora.items()} if spec.adapter else {}
    shape = adapters.read_spec(spec.adapter) if spec.adapter else spec.lora
    return Policy(model, device, spec, lora, scale=shape.scale if shape else 0.0, initial=initial)


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU. Raises BackendError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BackendError(
            f"device {name!r} is not usable: {error}", next_step="Use device = 'auto' or 'cpu'."
        ) from error
    return device


def inject(model: Any, spec: ModelSpec) -> dict[str, nn.Parameter]:
    """Put LoRA layers into `model` and fill them from `spec.adapter`, or from the seed. Empty without LoRA."""
    shape, arrays = (spec.lora, None) if spec.adapter is None else adapters.read(spec.adapter)
    if shape is None:
        return {}
    if spec.lora is not None and spec.lora != shape and sorted_shape(spec.lora) != sorted_shape(shape):
        raise ModelError(f"the adapter is {shape}, not {spec.lora}.", where=str(spec.adapter), next_step="Drop `lora`.")
    linears = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for target in shape.targets:
        if target not in linears:
            step = nearest(target, linears)
            raise ModelError(f"no linear layer {target!r} to adapt.", where=str(spec.path), next_step=step)
    alpha: Any = shape.alpha  # PEFT's annotation says int; it divides by the rank all the same
    config = LoraConfig(r=shape.rank, lora_alpha=alpha, target_modules=list(shape.targets), lora_dropout=0.0)
    inject_adapter_in_model(config, model)
    lora = {
        adapters.PREFIX + name.replace(".default.", "."): parameter
        for name, parameter in model.named_parameters()
        if ".lora_" in name
    }
    for parameter in lora.values():
        parameter.data = parameter.data.float()
    fill(lora, initial(lora, spec.seed, shape) if arrays is None else arrays)
    return lora


def sorted_shape(shape: LoraSpec) -> tuple[int, float, tuple[str, ...]]:
    """Comparable form: the order of targets means nothing."""
    return shape.rank, shape.alpha, tuple(sorted(shape.targets))


def initial(lora: dict[str, nn.Parameter], seed: int, shape: LoraSpec) -> Arrays:
    """The core's initial matrices for every LoRA pair of this model."""
    arrays = {}
    for module in sorted({adapters.module(name) for name in lora}):
        a, b = adapters.parameter(module, "A"), adapters.parameter(module, "B")
        arrays[a], arrays[b] = lora_matrices(seed, module, shape.rank, lora[a].shape[1], lora[b].shape[0])
    return arrays


def check_fit(lora: dict[str, nn.Parameter], arrays: Arrays) -> None:
    """Raise ModelError unless the names and shapes of `arrays` are the parameters' own."""
    if lora.keys() != arrays.keys():
        odd = sorted(lora.keys() ^ arrays.keys())
        raise ModelError(f"{len(odd)} adapter matrices do not fit this model, such as {odd[0]}.", next_step=BASE)
    for name, parameter in lora.items():
        if tuple(parameter.shape) != arrays[name].shape:
            wants, has = tuple(parameter.shape), arrays[name].shape
            raise ModelError(f"{name} has shape {has}, the model wants {wants}.", next_step=BASE)


def fill(lora: dict[str, nn.Parameter], arrays: Arrays) -> None:
    """Copy `arrays` into the parameters; raises what `check_fit` raises, before anything is changed."""
    check_fit(lora, arrays)
    with torch.no_grad():
        for name, parameter in lora.items():
            parameter.copy_(torch.from_numpy(np.array(arrays[name], dtype=np.float32)))


def measure_memory(policy: Policy) -> Memory:
    """Device bytes on CUDA, the process's resident bytes on the CPU."""
    if policy.device.type == "cuda":
        total = torch.cuda.get_device_properties(policy.device).total_memory
        return Memory(torch.cuda.memory_allocated(policy.device), torch.cuda.max_memory_allocated(policy.device), total)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    used = psutil.Process().memory_info().rss
    return Memory(used, max(used, peak), psutil.virtual_memory().total)  # the two are not counted at one moment
