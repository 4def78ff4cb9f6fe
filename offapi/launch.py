"""What a launcher says in a process's environment: which rank it is, of how many, and where.

`torchrun` starts ranks of the torch backend, `mlx.launch` those of MLX. Left out: MPI, and starting
the processes, which is the launchers' work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from offapi.errors import BackendError, RunError

RESUME = "See what the other ranks say, then resume the run with --resume, on as many as you like."
Address = tuple[str, int]  # host, port


@dataclass(frozen=True)
class Launch:
    """One process of a launch: its rank among `size`, and among those on its machine.

    `addresses` are those at which the ranks meet, as the launcher names them.
    """

    backend: str
    rank: int
    size: int
    local_rank: int = 0
    local_size: int = 1
    addresses: tuple[Address, ...] = ()


class RankLink(Protocol):
    """A library's own group of ranks, as the module `ranks` of a backend has it.

    Each call but `__init__` is made by all ranks, in the same order, and returns when all have made
    it. Each raises RuntimeError where another rank has ended.
    """

    rank: int
    size: int

    def __init__(self, launch: Launch) -> None: ...

    def join(self) -> None: ...

    def broadcast(self, data: bytes) -> bytes: ...

    def gather(self, data: bytes) -> list[bytes]: ...


class LostStep(RunError):
    """A rank failed within a step that the others still wait in, so the run ends."""


class OtherRankFailed(BackendError):
    """Another rank failed, which says why, so this one gave up its share of the work."""

    code = "other_rank"


def find_launch(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """Return how this process was launched; None where it is alone."""
    launch = _by_torchrun(environ) or _by_mlx_launch(environ)
    return launch if launch is not None and launch.size > 1 else None


def _by_torchrun(environ: Mapping[str, str]) -> Launch | None:
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if not all(environ.get(name) for name in names):
        return None
    rank, size, host, port = (environ[name] for name in names)
    return Launch(
        "torch",
        int(rank),
        int(size),
        int(environ.get("LOCAL_RANK", rank)),
        int(environ.get("LOCAL_WORLD_SIZE", size)),
        ((host, int(port)),),
    )


def _by_mlx_launch(environ: Mapping[str, str]) -> Launch | None:
    if not environ.get("MLX_RANK"):
        return None
    ring = _read(environ.get("MLX_HOSTFILE"))  # of each rank, its addresses
    devices = _read(environ.get("MLX_IBV_DEVICES"))  # of each rank, its links by RDMA
    size = int(environ.get("MLX_WORLD_SIZE", 0)) or len(ring) or len(devices) or 1
    named = [address for addresses in ring for address in addresses]
    if "MLX_JACCL_COORDINATOR" in environ:
        named.append(environ["MLX_JACCL_COORDINATOR"])
    if "NCCL_HOST_IP" in environ:
        named.append(f"{environ['NCCL_HOST_IP']}:{environ.get('NCCL_PORT', 0)}")
    pairs = [address.rpartition(":") for address in named]
    addresses = tuple((host, int(port)) for host, _, port in pairs)
    return Launch("mlx", int(environ["MLX_RANK"]), size, addresses=addresses)


def _read(path: str | None) -> list[list[str]]:
    """Return the list in a launcher's file; it is empty where one process is launched alone."""
    text = Path(path).read_text().strip() if path else ""
    found: list[list[str]] = json.loads(text) if text else []
    return found
