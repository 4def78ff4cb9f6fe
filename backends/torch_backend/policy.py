"""The model in torch: base weights by transformers, LoRA by PEFT, attention by `attention.attend`.

Where the attention is more than softmax over keys in a window, or something else carries state from
token to token, the library's own forward takes the place of packed rows (`library_forward`). Left
out: how a base is split over ranks (`sharded`).
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psutil
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import AttentionInterface

from offapi.backend import Memory
from offapi.errors import BackendError, ModelError
from offapi.implementations import GROWING_ROPES
from offapi.model_spec import Limits, ModelSpec

from . import full, quantised, sharded
from .attention import Layout, attend
from .checkpointing import Checkpointing, return_freed_blocks, wrap
from .head import after_base, is_matrix, vocabulary_of
from .injection import inject
from .library_forward import library_hidden
from .lora import adapted
from .merged_weights import Merged
from .packed_attention import Packed

ATTENTION = "offapi"
# keys of configurations whose layers wait for numbers of the device
LOOKS_BACK = ("num_experts", "num_local_experts", "n_routed_experts", "activation_sparsity_pattern")
LARGEST = 16384  # tokens of a micro-batch on CUDA
AttentionInterface.register(ATTENTION, attend)


@dataclass
class Policy:
    """The loaded model and what training it needs. Mutable: gradients and moments live here."""

    model: Any  # a transformers causal LM with LoRA layers injected
    device: torch.device
    spec: ModelSpec
    lora: dict[str, nn.Parameter]  # what is trained, fp32: by PEFT's names, or all weights
    checkpointing: Checkpointing
    optimizer: torch.optim.AdamW | None = None
    steps: int = 0
    prefilled_tokens: int = field(default=0)
    version: int = 0  # of the adapter's matrices: keys and values of another one are useless
    loaded: dict[str, Tensor] | None = None  # the adapter that was loaded; None: newly drawn
    merged: Merged | None = None  # None where it would take too much memory
    implementation: str = "packed"
    cached: bool = True  # whether the library's cache gives what its forward does
    plain_head: bool = False  # whether the head is a product with a matrix and nothing else
    lockstep: sharded.Lockstep | None = None  # where the base is sharded

    @property
    def head(self) -> Tensor | None:
        """The head's matrix (V, D) if it is nothing else."""
        if not self.plain_head:
            return None
        matrix: Tensor = self.model.get_output_embeddings().weight
        return matrix

    def together(self) -> AbstractContextManager[None]:
        """See `Backend.together`."""
        return self.lockstep.together() if self.lockstep else nullcontext()

    def step(self, backward: bool = False) -> AbstractContextManager[None]:
        """Run a forward pass in the block, on all ranks where the base is sharded.

        With `backward`, run its backward pass too.
        """
        return self.lockstep.step(backward) if self.lockstep else nullcontext()

    def without_gradients(self) -> AbstractContextManager[None]:
        """Compute for no backward pass; gathered weights take part in later ones."""
        return torch.no_grad() if self.lockstep else torch.inference_mode()

    def logits(self, hidden_TD: Tensor, plain: bool = True) -> Tensor:
        """Return the logits (T, V) of the base's last hidden states.

        Without `plain` the head is run as a layer, which a further adapter may be on.
        """
        if plain and self.head is not None:
            return hidden_TD @ self.head.T
        return after_base(self.model, hidden_TD)

    def hidden(self, tokens: Tensor, positions: Tensor, layout: Layout) -> Tensor:
        """Return the last hidden states of packed `tokens` (1, L), shape (1, L, D)."""
        out = sharded.run_base(
            self.model, input_ids=tokens, position_ids=positions, use_cache=False, layout=layout
        )
        states: Tensor = out.last_hidden_state
        return states

    def sampled_hidden(self, tokens: Tensor, positions: Tensor, layout: Layout) -> Tensor:
        """Return `hidden` for rollouts, from the weights of `prepare_rollout`."""
        with self.merged.applied() if self.merged else nullcontext():
            return self.hidden(tokens, positions, layout)

    def prepare_rollout(self) -> None:
        """On CUDA, merge the adapter as it is now into a copy of the weights.

        The copy is made only if it fits into a quarter of the free memory.
        """
        if self.device.type != "cuda" or not self.lora or self.spec.full:
            return
        if self.implementation != "packed" or self.lockstep:
            return
        if self.merged is None:
            needed = sum(quantised.float_bytes(layer.base_layer) for layer in adapted(self.model))
            if needed > torch.cuda.mem_get_info(self.device)[0] // 4:
                return
            self.merged = Merged(self.model)
        self.merged.refresh()

    @property
    def capturable(self) -> bool:
        """Whether a CUDA graph can hold a decoding step.

        It cannot if a layer looks at numbers on the CPU: a rotary embedding at lengths, a router at
        which experts have tokens, a sparse activation at its cut.
        """
        config = self.model.config.get_text_config()
        looks = any(getattr(config, key, None) for key in LOOKS_BACK)
        waits = looks or self.lockstep is not None
        return self.device.type == "cuda" and self.longest is None and not waits

    @property
    def longest(self) -> int | None:
        """Tokens of a row beyond which its rotary embedding changes at every position; None: never.

        Rows of one pass would then change each other, and a cache would be of another embedding.
        """
        config = self.model.config.get_text_config()
        rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
        if rope is None or not any(kind in str(rope) for kind in GROWING_ROPES):
            return None
        first = rope.get("original_max_position_embeddings") if "longrope" in str(rope) else None
        return int(first or config.max_position_embeddings)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        return vocabulary_of(self.model)

    @contextmanager
    def scored_by_reference(self) -> Iterator[None]:
        """Compute with the adapter that was loaded, or without one if it was newly drawn.

        Of a model trained in full, compute with the weights that were loaded.
        """
        if self.spec.full and self.version and self.loaded is None:
            self.loaded = full.as_loaded(load_base(self.spec, self.device), self.lora)
        if self.loaded is not None:
            with self._swapped(self.loaded):
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
    def _swapped(self, matrices: dict[str, Tensor]) -> Iterator[None]:
        current = {name: parameter.data for name, parameter in self.lora.items()}
        try:
            for name, parameter in self.lora.items():
                parameter.data = matrices[name]
            self.publish()
            yield
        finally:
            for name, parameter in self.lora.items():
                parameter.data = current[name]
            self.publish()

    def publish(self) -> None:
        """Round the float32 masters into the weights of a model that is trained in full."""
        if not self.spec.full or self.spec.dtype == "float32":
            return
        with torch.no_grad():
            for name, weight in full.weights_of(self.model).items():
                weight.copy_(self.lora[name])


def load_policy(spec: ModelSpec) -> Policy:
    """Load base and adapter.

    Raise BackendError for a missing device or dtype, ModelError for a bad folder.
    """
    device = choose_device(spec.device)
    if spec.shard:
        mesh = sharded.mesh_of(spec, device)
        model, lora, plain_head = sharded.in_turn(partial(_load, spec, device, mesh))
    else:
        model, lora, plain_head = _load(spec, device)
    if device.type == "cuda":
        spec = replace(spec, limits=fitting(spec, torch.cuda.mem_get_info(device)[0]))
    loaded = None
    if spec.adapter is not None:
        loaded = {name: parameter.data.clone() for name, parameter in lora.items()}
    switch = wrap(model, spec, device)
    policy = Policy(model, device, spec, lora, switch, loaded=loaded, plain_head=plain_head)
    if spec.shard:
        policy.lockstep = sharded.Lockstep(model, partial(_run_one_token, policy))
    return policy


def _load(
    spec: ModelSpec, device: torch.device, mesh: DeviceMesh | None = None
) -> tuple[Any, dict[str, nn.Parameter], bool]:
    """Return the model, what is trained of it, and whether its head is a matrix alone."""
    model = load_base(spec, device)
    if spec.full:
        lora = full.unfreeze(model.to(device), spec)
    else:
        model.requires_grad_(False)
        lora = inject(model, spec)
    model.train(False)
    if mesh is None:
        model.to(device)
        return model, lora, is_matrix(model)
    plain_head = is_matrix(model)
    sharded.shard(model, set(lora.values()), mesh)
    return model, lora, plain_head


def _run_one_token(policy: Policy, backward: bool) -> None:
    """Take part in a pass of the other ranks; a backward pass adds gradients of 0."""
    token_11 = torch.zeros(1, 1, dtype=torch.long, device=policy.device)
    with torch.enable_grad() if backward else torch.no_grad():
        if policy.implementation == "library":
            hidden_11D = library_hidden(policy.model, token_11)
        else:
            hidden_11D = policy.hidden(token_11, token_11, Packed(((0, (1,)),)))
        if backward:
            (hidden_11D.sum() * 0.0).backward()  # type: ignore[no-untyped-call]


def load_base(spec: ModelSpec, device: torch.device) -> Any:
    """Load the model of `spec` alone. Raise what `load_policy` does."""
    few_bits = quantised.loading(spec, device)
    if spec.quantize is not None:
        return_freed_blocks()  # each layer's float copy, once it is packed
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            spec.path,
            dtype=torch.float32 if spec.full else getattr(torch, spec.dtype),
            attn_implementation=None if spec.implementation == "library" else ATTENTION,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            **few_bits,
        )
    except (RuntimeError, MemoryError):  # full memory is no fault of the folder's
        raise
    except Exception as error:  # whatever transformers raises for a bad folder
        raise ModelError(
            f"transformers cannot load the model: {error}",
            where=str(spec.path),
            next_step="Run `offapi models verify`.",
        ) from error
    quantised.settle(model, spec)
    return model


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is CUDA if there is one, else the CPU.

    Raise BackendError for a missing device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BackendError(
            f"device {name!r} cannot be used: {error}", next_step="Use device = 'auto' or 'cpu'."
        ) from error
    return device


def fitting(spec: ModelSpec, free: int) -> Limits:
    """Return the limits; without `train_tokens`, with the largest micro-batch that fits.

    It is at most LARGEST tokens, and takes half of the `free` bytes, by the activation bytes that
    the core gives. A GPU that waits for launches trains 3 (fp32) to 7 times (bf16) as fast in
    micro-batches of 16,384 tokens.
    """
    tokens, size = spec.limits.micro_batch, spec.activation_bytes
    if spec.limits.train_tokens is not None or size is None:
        return spec.limits
    while tokens < LARGEST and 2 * tokens * size <= free / 2:
        tokens *= 2
    return replace(spec.limits, train_tokens=tokens)


def measure_memory(policy: Policy) -> Memory:
    """Return device bytes on CUDA, the process's resident bytes on the CPU."""
    free = policy.checkpointing.memory.free
    if policy.device.type == "cuda":
        total = torch.cuda.get_device_properties(policy.device).total_memory
        return Memory(
            torch.cuda.memory_allocated(policy.device),
            torch.cuda.max_memory_allocated(policy.device),
            total,
            free,
        )
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    used = psutil.Process().memory_info().rss
    # The two are not measured at the same moment, so the peak may lag behind.
    return Memory(used, max(used, peak), psutil.virtual_memory().total, free)
