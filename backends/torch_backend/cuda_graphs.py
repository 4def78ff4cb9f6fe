"""Decoding steps captured as CUDA graphs: a step's many small kernels start without the CPU.

A graph replays on fixed addresses and shapes, so a step covers every slot, empty ones too,
and reads a fixed number of keys. Left out: graphs kept from one call of `rollout` to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .sampling import Drawn

# tokens, filled, noise (rows,); keys read of a row
Step = Callable[[Tensor, Tensor, Tensor, int], Drawn]
LEAST = 512  # keys: below, one graph does


class Graphs:
    """`step` for up to `room` rows whose slots hold `capacity` keys, by the number of keys read."""

    def __init__(self, step: Step, room: int, capacity: int, device: torch.device) -> None:
        self.step, self.capacity = step, capacity
        self.whole = torch.zeros(2, room, dtype=torch.long, device=device)  # tokens, filled
        self.noise = torch.zeros(room, dtype=torch.float32, device=device)
        self.pool = torch.cuda.graph_pool_handle()
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, Drawn]] = {}

    def __call__(
        self, tokens: Sequence[int], filled: Sequence[int], noise: Sequence[float]
    ) -> Drawn:
        """Decode one token for each row. What it returns is overwritten by the next call."""
        rows, empty = len(tokens), [0] * (self.whole.shape[1] - len(tokens))
        self.whole.copy_(torch.tensor([[*tokens, *empty], [*filled, *empty]]))
        self.noise[:rows].copy_(torch.tensor(noise, dtype=torch.float32))
        longest = bucket(max(filled) + 1, self.capacity)
        if longest not in self.graphs:
            self.graphs[longest] = self._capture(longest)
        graph, (tokens_R, logprobs_R, left_RV) = self.graphs[longest]
        graph.replay()
        return tokens_R[:rows], logprobs_R[:rows], None if left_RV is None else left_RV[:rows]

    def _capture(self, longest: int) -> tuple[torch.cuda.CUDAGraph, Drawn]:
        """Record the step on what the inputs hold; a run
        before it makes the libraries ready, and is repeated.
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
        return self.step(self.whole[0], self.whole[1], self.noise, longest)


def bucket(longest: int, capacity: int) -> int:
    """`longest` rounded up so that few graphs are needed: a power of two, not above `capacity`."""
    return min(max(1 << (longest - 1).bit_length(), LEAST), capacity)
