"""The keys of the GRPO recipe. What each rule of `[loss]` means stands in `offapi.objective`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from offapi import adapter
from offapi.backend import LoraSpec, ModelSpec, Sampling
from offapi.chat import Chat
from offapi.models import Model
from offapi.objective import PolicyLoss
from offapi.plan import Rounds
from offapi.rl.gates import Gate
from offapi.rl.rollouts import Prompt
from offapi.task import Task

from .sft import Training


@dataclass(frozen=True, kw_only=True)
class Config(Training):
    """Keys of `recipe = "grpo"`. `batch_size` counts prompts; `epochs` passes over the documents."""

    recipe: Literal["grpo"] = "grpo"
    data: Path  # documents; their gold, if any, is never rewarded
    adapter: Path | None = None  # a trained student to start from; it is the reference as well
    rollouts: Path | None = None  # offline: graded traces, or a run's rollouts folder, instead of sampling
    loss: PolicyLoss = PolicyLoss()
    num_generations: int = 8  # completions of a prompt: the group
    num_iterations: int = 1  # updates from one batch of rollouts
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_resamples: int = 0  # DAPO's dynamic sampling: how often prompts without signal are replaced
    overlong: int = 0  # DAPO's soft limit: the last so many tokens cost reward
    eval_every: int = 20  # steps between looks at the held-out documents
    workers: int = 2  # processes that reward
    reward_seconds: float = 10.0  # one call of a check may take
    allow: tuple[Gate, ...] = ()
    epochs: float = 1.0
    lr: float = 1e-4
    name: str = "grpo"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_generations < 2:
            raise ValueError("num_generations must be 2 or more")
        if self.loss.temperature != 1.0 or self.loss.max_tokens != 1:
            raise ValueError("loss.temperature and loss.max_tokens follow from the sampling; set temperature")
        if self.temperature <= 0:
            raise ValueError("temperature must be above 0")

    def reads(self) -> dict[str, Path]:
        """The files the result depends on."""
        more = {"val": self.val, "adapter": self.adapter, "rollouts": self.rollouts}
        return {"task": self.task, "data": self.data, **{name: path for name, path in more.items() if path}}

    @property
    def shape(self) -> LoraSpec:
        """The shape of what is trained: the loaded adapter's, or a fresh one's."""
        return adapter.read_spec(self.adapter) if self.adapter else self.lora

    def spec(self, model: Model) -> ModelSpec:
        """What the backend loads to train."""
        fresh = super().spec(model)
        return replace(fresh, adapter=self.adapter, lora=None) if self.adapter else fresh

    def sampling(self, task: Task, chat: Chat) -> Sampling:
        """How completions are drawn."""
        return Sampling(
            max_tokens=task.max_answer_tokens,
            stop_ids=chat.stop_ids,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            seed=self.seed,
        )

    def objective(self, task: Task) -> PolicyLoss:
        """The loss, with what follows from the sampling."""
        return replace(self.loss, temperature=self.temperature, max_tokens=task.max_answer_tokens)

    def rounds(self, task: Task, prompts: Sequence[Prompt], heldout: Sequence[Prompt]) -> Rounds:
        """What it asks of the model, to say beforehand how long that takes."""
        return Rounds(
            [len(prompt.tokens) for prompt in prompts],
            [len(prompt.tokens) for prompt in heldout],
            answer=task.max_answer_tokens,
            group=self.num_generations,
            updates=self.num_iterations,
            eval_every=self.eval_every,
        )
