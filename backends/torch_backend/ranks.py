"""The processes that `torchrun` started, as one group of `torch.distributed`: bytes and gradients.

Gloo carries what is on the CPU, NCCL the gradients of ranks that have a GPU each. Left out: who
says what to whom (`offapi.ranks`), and splitting one model over ranks (`sharded`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from offapi.launch import Launch

from .policy import Policy

FOREVER = timedelta(days=365)  # `offapi.ranks.ranks` says how long a rank waits
BUCKET = 16_777_216  # numbers that are summed at once


class Link:
    """The group of this launch; see `offapi.launch.RankLink`."""

    def __init__(self, launch: Launch) -> None:
        self.rank, self.size, self._launch = launch.rank, launch.size, launch
        self._nccl = dist.is_nccl_available() and torch.cuda.device_count() >= launch.local_size
        if torch.cuda.is_available():  # "cuda" is then this one
            torch.cuda.set_device(launch.local_rank % torch.cuda.device_count())

    def join(self) -> None:
        """Connect with the other ranks, at the address that the launcher's environment names."""
        if dist.is_initialized():  # by an earlier command of this process
            return
        kind = "cpu:gloo,cuda:nccl" if self._nccl else "gloo"
        dist.init_process_group(
            kind, timeout=FOREVER, rank=self.rank, world_size=self.size, init_method="env://"
        )

    def broadcast(self, data: bytes) -> bytes:
        """Return what rank 0 gives."""
        length = torch.tensor([len(data)])
        dist.broadcast(length, src=0)
        taken = _bytes(data) if self.rank == 0 else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(taken, src=0)
        return taken.numpy().tobytes()

    def gather(self, data: bytes) -> list[bytes]:
        """Return what each rank gives, in the order of ranks."""
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(data)]))
        longest = int(max(lengths))
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(data)] = _bytes(data)
        parts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        pairs = zip(parts, lengths, strict=True)
        return [part[: int(length)].numpy().tobytes() for part, length in pairs]


def sum_gradients(policy: Policy) -> None:
    """See `Backend.sum_gradients`."""
    parameters = [policy.lora[name] for name in sorted(policy.lora)]
    has = torch.tensor([float(any(parameter.grad is not None for parameter in parameters))])
    dist.all_reduce(has)
    if not has:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets(
        [parameter.grad for parameter in parameters if parameter.grad is not None]
    ):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        on_cpu = dist.get_backend() == "gloo" and flat.device.type != "cpu"
        summed = flat.cpu() if on_cpu else flat
        dist.all_reduce(summed)
        sizes = [gradient.numel() for gradient in bucket]
        for gradient, part in zip(bucket, torch.split(summed, sizes), strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the gradients in order, about BUCKET numbers at a time."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        bucket.append(gradient)
        if sum(each.numel() for each in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def _bytes(data: bytes) -> Tensor:
    return (
        torch.frombuffer(bytearray(data), dtype=torch.uint8)
        if data
        else torch.empty(0, dtype=torch.uint8)
    )
