"""What the arms of the GRPO bench share: fixed settings, the reward, and how an arm is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pairs import Clock, Result, finish

RANK, ALPHA, LR, CLIP = 16, 32, 1e-4, 0.2
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NO_END = -1  # not a token's id, so no completion ends early
TASK = """\
from dataclasses import replace
from grpo_common import reward
from offapi.demo.task import task
task = replace(task, reward=lambda documents, answers: [reward(answer) for answer in answers])
"""


def reward(text: str) -> float:
    """Return the share of vowels: cheap, and rarely the same twice."""
    return sum(letter in "aeiou" for letter in text) / max(len(text), 1)


def timed(work: Result, folder: Path, clock: Clock, act: Callable[[list[list[int]]], int]) -> None:
    """Time `act` on each step's prompts, after an untimed warm-up.

    `act` returns the completion tokens it processed.
    """
    n, tokens = work["prompts"], 0
    for step in range(work["warmup"] + work["steps"]):
        if step == work["warmup"]:
            tokens = 0
            clock.start()
        tokens += act(work["tokens"][step * n : (step + 1) * n])
    clock.stop()
    finish(folder, clock, tokens)


@dataclass
class Sampling:
    """Seconds spent in rollouts and their rewards since the clock was started.

    The rest of a step is training.
    """

    seconds: float = 0.0

    @contextmanager
    def under_way(self) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - begun

    def phases(self, clock: Clock) -> dict[str, float]:
        return {"rollout": self.seconds, "train": clock.measured["seconds"] - self.seconds}
