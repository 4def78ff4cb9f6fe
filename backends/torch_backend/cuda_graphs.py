"""Decoding steps captured as CUDA graphs, so that many small kernels start without the CPU.

A graph replays on fixed addresses and shapes. A step therefore covers every slot, empty ones too,
and reads a fixed number of keys. Left out: keeping graphs when slots move or rows differ in kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .sampling import Drawn

# tokens_R, filled_R, uniforms_R, and the number of keys read of each row
Step = Callable[[Tensor, Tensor, Tensor, int], Drawn]
LEAST = 512  # keys: one graph serves all smaller numbers


class Graphs:
    """The captured steps, one for each number of keys read.

    They decode up to `room` rows, whose slots hold `capacity` keys.
    """

    def __init__(self, step: Step, room: int, capacity: int, device: torch.device) -> None:
        self.step, self.capacity = step, capacity
        self.inputs_2R = torch.zeros(2, room, dtype=torch.long, device=device)  # tokens, filled
        self.uniforms_R = torch.zeros(room, dtype=torch.float32, device=device)
        self.pool = torch.cuda.graph_pool_handle()
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, Drawn]] = {}

    def __call__(
        self, tokens: Sequence[int], filled: Sequence[int], uniforms: Sequence[float]
    ) -> Drawn:
        """Decode one token for each row. The next call overwrites what this one returns."""
        rows, empty = len(tokens), [0] * (self.inputs_2R.shape[1] - len(tokens))
        self.inputs_2R.copy_(torch.tensor([[*tokens, *empty], [*filled, *empty]]))
        self.uniforms_R[:rows].copy_(torch.tensor(uniforms, dtype=torch.float32))
        longest = bucket(max(filled) + 1, self.capacity)
        if longest not in self.graphs:
            self.graphs[longest] = self._capture(longest)
        graph, drawn = self.graphs[longest]
        graph.replay()
        return drawn.first(rows)

    def _capture(self, longest: int) -> tuple[torch.cuda.CUDAGraph, Drawn]:
        """Record the step on the present inputs.

        A run before it initialises the libraries, and the recording repeats that run.
        """
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._run(longest)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=stream):
            drawn = self._run(longest)
        return graph, drawn

    def _run(self, longest: int) -> Drawn:
        return self.step(self.inputs_2R[0], self.inputs_2R[1], self.uniforms_R, longest)


def bucket(longest: int, capacity: int) -> int:
    """Return `longest` rounded up to a power of two, at most `capacity`.

    Rounding keeps the number of graphs small.
    """
    return min(max(1 << (longest - 1).bit_length(), LEAST), capacity)
