"""A frozen base split over the ranks of a launch by FSDP2, each layer gathered while it is used.

Every gather is a call that all ranks make, so they run forward passes in step: before each they
agree that there is one, and a rank with nothing to compute runs one token for the others' sake.
What is outside the layers (embeddings, last norm, head) is gathered for a whole micro-batch. LoRA's
matrices stay whole on every rank. Left out: bases in few bits, and weights that are trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from offapi.errors import BackendError
from offapi.launch import RESUME, LostStep, OtherRankFailed, find_launch
from offapi.model_spec import ModelSpec

DONE, FORWARD, BACKWARD, FAILED = range(4)  # what a rank does next; the largest counts
METHOD = "sharded_base"  # of a model, in place of a call of its base
T = TypeVar("T")


class Lockstep:
    """The forward passes of one sharded model, which all ranks make together.

    `dummy` runs one token, with a backward pass of weight 0 where it is given True.
    """

    def __init__(self, model: Any, dummy: Callable[[bool], None]) -> None:
        self._model, self._dummy = model, dummy

    @contextmanager
    def together(self) -> Iterator[None]:
        """See `Backend.together`."""
        try:
            yield
        except (LostStep, OtherRankFailed):
            raise
        except Exception:
            _agree(FAILED)
            raise
        else:
            while task := _agree(DONE):
                self._dummy(task == BACKWARD)
        finally:
            self._model.reset_iter_state()  # gathered weights are freed

    @contextmanager
    def step(self, backward: bool = False) -> Iterator[None]:
        """Run a forward pass in the block, and its backward pass if `backward`, on all ranks."""
        _agree(BACKWARD if backward else FORWARD)
        try:
            yield
        except Exception as error:
            what = f"a pass that all ranks make together failed: {_first_line(error)}."
            raise LostStep(what, next_step=RESUME) from error


def mesh_of(spec: ModelSpec, device: torch.device) -> DeviceMesh:
    """Return all ranks in a line; raise BackendError where they cannot share the base of `spec`."""
    if spec.full or spec.quantize is not None:
        key = "full" if spec.full else "quantize"
        raise BackendError(
            f"shard cannot go with {key}: it splits a frozen base that is not quantized.",
            next_step=f"Leave out `{key}`, or leave out `shard`.",
        )
    if not dist.is_initialized() or dist.get_world_size() < 2:
        raise BackendError(
            "shard splits the base over ranks, and this is one process.",
            next_step="Start it with `torchrun --nproc-per-node N -m offapi train`, or leave out"
            " `shard`.",
        )
    if device.type == "cuda" and dist.get_backend() == "gloo":
        raise BackendError(
            "shard needs a GPU for each rank, and NCCL between them.",
            next_step="Start as many ranks as there are GPUs, or set device = 'cpu'.",
        )
    return DeviceMesh(device.type, list(range(dist.get_world_size())))


def in_turn(load: Callable[[], T]) -> T:
    """Return what `load` returns, called by one rank of each machine after the other.

    So a machine's memory holds one whole base at a time, whatever the number of its ranks.
    """
    launch = find_launch()
    own, turns = (launch.local_rank, launch.local_size) if launch else (0, 1)
    loaded: T | None = None
    failed: Exception | None = None
    for turn in range(_largest(turns)):
        if turn == own:
            try:
                loaded = load()
            except Exception as error:
                failed = error
        _agree(DONE)
    if failed is not None:
        _largest(FAILED)
        raise failed
    _agree(DONE)
    assert loaded is not None
    return loaded


def shard(model: Any, trained: set[nn.Parameter], mesh: DeviceMesh) -> None:
    """Keep of each weight of `model`, which is on the CPU, this rank's rows on the ranks' device.

    Layers are moved and split one by one, then what is outside them. `trained` stay whole.
    """
    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    for layer in reversed(layers):  # a layer inside another comes first
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    fully_shard(model, mesh=mesh, ignored_params=trained)
    for parameter in trained:
        parameter.data = parameter.data.to(mesh.device_type)
    setattr(model, METHOD, MethodType(_base, model))
    register_fsdp_forward_method(model, METHOD)


def run_base(model: Any, **given: Any) -> Any:
    """Return what the base of `model` returns, its weights gathered where it is sharded."""
    return (getattr(model, METHOD, None) or model.base_model)(**given)


def held(weight: Tensor) -> Tensor:
    """Return what this process holds of a weight: all of it where it is not sharded."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _base(model: Any, **given: Any) -> Any:
    return model.base_model(**given)


def _agree(task: int) -> int:
    """Return the largest task that a rank has. Raise OtherRankFailed where one failed."""
    largest = _largest(task)
    if largest == FAILED and task != FAILED:
        raise OtherRankFailed("another rank failed in what all compute together.")
    return largest


def _largest(number: int) -> int:
    given = torch.tensor([number])
    try:
        dist.all_reduce(given, dist.ReduceOp.MAX)
    except RuntimeError as error:
        raise LostStep("another rank has ended, or cannot be reached.", next_step=RESUME) from error
    return int(given)
