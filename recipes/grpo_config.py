"""The keys of the GRPO recipe; `offapi.policy_loss` explains the rules of `[loss]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Literal

from offapi import adapter
from offapi.agent.unfinished import Agent
from offapi.backend import Sampling
from offapi.chat.chat import Chat
from offapi.config.bounds import ABOVE_0, AT_LEAST_0, AT_LEAST_1, Bound, require
from offapi.constrain import Level
from offapi.episodes import common_prefix_length
from offapi.errors import ConfigError
from offapi.evaluation.agent_answers import agent_of
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.models.store import Model
from offapi.policy_loss import PolicyLoss
from offapi.rl.gates import Gate
from offapi.rl.monitor import Monitor
from offapi.rl.rollouts import Credit, Prompt
from offapi.task import Task
from offapi.training.forecast import Rounds
from offapi.training.schedule import Schedule

from .training import Training

# float32 logits are exact to some 5e-5; divided by this, that is the mismatch gate's 1e-3 nats
COLDEST = 0.05
BOUNDS: Mapping[str, Bound] = {
    "num_generations": (lambda n: n >= 2, "2 or more"),
    "num_iterations": AT_LEAST_1,
    "temperature": (lambda t: COLDEST <= t < inf, f"{COLDEST} or more"),
    "top_k": AT_LEAST_0,
    "top_p": (lambda p: 0 < p <= 1, "above 0 and at most 1"),
    "min_p": (lambda p: 0 <= p < 1, "0 or more and below 1"),
    "max_resamples": AT_LEAST_0,
    "overlong": AT_LEAST_0,
    "eval_every": AT_LEAST_1,
    "workers": AT_LEAST_1,
    "reward_seconds": ABOVE_0,
}


@dataclass(frozen=True, kw_only=True)
class Config(Training):
    """Keys of `recipe = "grpo"`.

    `batch_size` counts prompts; `epochs` passes over the documents.
    """

    recipe: Literal["grpo"] = "grpo"
    data: Path  # documents
    gold: Literal["audit", "reward"] = "audit"  # whether checks that compare it are rewarded
    adapter: Path | None = None  # a trained student to start from; it is the reference as well
    # offline: graded traces, or a run's rollouts folder, instead of sampling
    rollouts: Path | None = None
    loss: PolicyLoss = PolicyLoss()
    num_generations: int = 8  # completions of a prompt: the group
    num_iterations: int = 1  # updates from one batch of rollouts
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    constrain: Level = "off"  # what completions can be: schema, source or register
    max_resamples: int = 0  # DAPO's dynamic sampling: how often prompts without signal are replaced
    overlong: int = 0  # DAPO's soft limit: this many last tokens of an answer cost reward
    credit: Credit = "episode"  # of an agent's advantage: one for the episode, or one for each turn
    eval_every: int = 20  # steps between evaluations on the held-out documents
    workers: int = 2  # processes that compute rewards
    reward_seconds: float = 10.0  # limit of one call of a check
    allow: tuple[Gate, ...] = ()
    epochs: float = 1.0
    lr: float = 1e-4
    name: str = "grpo"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, BOUNDS)
        if self.loss.temperature != 1.0 or self.loss.max_tokens != 1:
            raise ValueError(
                "loss.temperature and loss.max_tokens cannot be set: they follow from temperature"
                " and the task's max_answer_tokens"
            )

    def check(self, task: Task) -> None:
        """Raise ConfigError for keys that do not fit the task, or each other."""
        if self.full and self.adapter is not None:
            raise ConfigError(
                "`full` trains every weight and `adapter` an adapter: not both at once.",
                where="full",
                next_step="Leave out one of them. `offapi export RUN --to fused` makes one model.",
            )
        if self.rollouts is not None and self.constrain != "off":
            raise ConfigError(
                f"constrain = {self.constrain!r} bounds what is sampled; with `rollouts` nothing"
                " is.",
                where="constrain",
                next_step="Leave out `constrain` or `rollouts`.",
            )
        if task.is_agent:
            self._check_agent()
        if self.overlong >= task.max_answer_tokens:
            what = (
                f"overlong must be below the task's max_answer_tokens ({task.max_answer_tokens}),"
                f" got {self.overlong}: every token of an answer would cost reward."
            )
            step = "Lower `overlong` in the recipe, or raise the task's max_answer_tokens."
            raise ConfigError(what, where=f"{self.task}, field 'max_answer_tokens'", next_step=step)

    def _check_agent(self) -> None:
        """Raise ConfigError for keys that an agent's episodes do not have."""
        if self.constrain != "off":
            what, where = "`constrain` bounds a single answer, and the task has tools.", "constrain"
        elif self.overlong:
            what, where = "`overlong` is for single answers, and the task has tools.", "overlong"
        elif self.shard:
            what, where = "a task with tools is sampled on one rank, which has a part.", "shard"
        elif self.credit == "turn" and self.loss.shape.ratio != "token":
            what, where = f"{self.loss.rule} has one ratio for a whole episode.", "credit"
        else:
            return
        step = f"Leave out `{where}`." if where != "credit" else "Use another rule, or no `credit`."
        raise ConfigError(what, where=where, next_step=step)

    def agent(self, task: Task, chat: Chat) -> Agent | None:
        """Return how a task with tools is run; None for another."""
        if not task.is_agent:
            return None
        return agent_of(task, chat, self.max_tokens)

    def longest(self, task: Task) -> int:
        """Return the tokens that one prompt's sample may draw at most."""
        turns = task.max_turns if task.is_agent else 1
        return min(turns * task.max_answer_tokens, self.max_tokens)

    def reads(self) -> dict[str, Path]:
        """Return the files that the result depends on."""
        more = {"val": self.val, "adapter": self.adapter, "rollouts": self.rollouts}
        return {
            "task": self.task,
            "data": self.data,
            **{name: path for name, path in more.items() if path},
        }

    @property
    def shape(self) -> LoraSpec | None:
        """The shape of the adapter that is trained: the loaded one's, or a new one's."""
        return adapter.read_spec(self.adapter) if self.adapter else super().shape

    def spec(self, model: Model) -> ModelSpec:
        """Return what the backend loads to train."""
        fresh = super().spec(model)
        return replace(fresh, adapter=self.adapter, lora=None) if self.adapter else fresh

    def sampling(self, task: Task, chat: Chat) -> Sampling:
        """Return how completions are sampled."""
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
        """Return the loss, with what follows from the sampling."""
        return replace(self.loss, temperature=self.temperature, max_tokens=self.longest(task))

    def monitor(self, task: Task, schedule: Schedule) -> Monitor:
        """Return the monitor of the run's steps."""
        return Monitor(
            steps=schedule.steps,
            eval_every=self.eval_every,
            checkpoint_every=self.checkpoint_every,
            max_tokens=task.max_answer_tokens,
            checked=task.reward is None and task.environment is None,
        )

    def rounds(self, task: Task, prompts: Sequence[Prompt], heldout: Sequence[Prompt]) -> Rounds:
        """Return the work that the run asks of the model, for its forecast."""
        prompt_lengths = [len(prompt.tokens) for prompt in prompts]
        answer = task.max_answer_tokens
        if task.is_agent:  # what its tools answer is read besides, up to the limit of a row
            answer = self.max_tokens - min(prompt_lengths)
        tokens = [prompt.tokens for prompt in (*prompts, *heldout)]
        return Rounds(
            prompt_lengths,
            [len(prompt.tokens) for prompt in heldout],
            answer=answer,
            group=self.num_generations,
            updates=self.num_iterations,
            eval_every=self.eval_every,
            shared=common_prefix_length(tokens),
        )
