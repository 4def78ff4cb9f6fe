"""GRPO: no answers, only documents and a score. The
model's own fresh attempts are scored while it trains.

Each step samples a group of completions for every prompt, rewards them by the task's checks in
processes of their own, and raises what did better than its group. Held-out documents and the
gates of `offapi.rl` watch whether it learns what is meant. Left out: agents' turns, value models.
"""

from __future__ import annotations

from dataclasses import dataclass

from offapi.backend import load
from offapi.chat.chat import Chat
from offapi.evaluation.accuracy import Report
from offapi.models.store import Model, get
from offapi.progress import Progress
from offapi.rl import gates, metrics, rollout_files
from offapi.rl.monitor import Watch
from offapi.rl.prompts import prompts, read
from offapi.rl.reward_pool import Rewards, rewarded
from offapi.rl.rollouts import (
    Prompt,
    RolloutGroup,
    Sampled,
    Sampler,
    carry_old,
    experiences,
    sample,
)
from offapi.rl.timings import Clock
from offapi.task import Task, load_task
from offapi.training import forecast_text
from offapi.training.run import Run

from .grpo_config import Config


@dataclass(frozen=True)
class Inputs:
    """Everything the recipe reads, read and checked before anything is written."""

    task: Task
    model: Model
    chat: Chat
    prompts: tuple[Prompt, ...]
    heldout: tuple[Prompt, ...]
    recorded: tuple[RolloutGroup, ...]  # offline: what was sampled before


def prepare(config: Config, out: Progress) -> Inputs:
    """Read and check the inputs."""
    task, model = load_task(config.task), get(config.model)
    rewarded(task)  # refuses a task with nothing to reward, before anything is written
    config.check(task)
    chat = Chat.load(model.path)
    rows, held = read(config.data, config.val, task, config.seed, config.adapter)
    asked, kept = (
        prompts(each, task, chat, config.max_tokens, config.on_long, out) for each in (rows, held)
    )
    recorded = rollout_files.read(config.rollouts, task, chat) if config.rollouts else ()
    return Inputs(task, model, chat, asked, kept, tuple(recorded))


def run(
    config: Config, inputs: Inputs, backend_name: str, folder: Run, out: Progress, resume: bool
) -> Report | None:
    """Train, watch, and keep the best adapter; the
    held-out documents' report where all have gold.
    """
    backend = load(backend_name, config.spec(inputs.model))
    clock = Clock()
    schedule = config.schedule(len(inputs.recorded or inputs.prompts))
    with Rewards(
        config.task, config.workers, config.reward_seconds, folder.path / "reward-failed.json"
    ) as rewards:
        sampling = config.sampling(inputs.task, inputs.chat)
        sampler = Sampler(
            backend, inputs.chat, rewards, config.num_generations, sampling, config.overlong
        )
        watch = Watch(
            config, inputs.task, schedule.steps, sampler, inputs.heldout, folder, out, clock
        )
        rounds = config.rounds(inputs.task, inputs.prompts, inputs.heldout)
        out.say(forecast_text.reinforcement(backend, rounds, schedule, config.spec(inputs.model)))
        trail = watch.resume() if resume else watch.start()
        with out.progress("training", schedule.steps) as advance:
            for step in range(trail.step, schedule.steps):
                if inputs.recorded:
                    sampled = Sampled(
                        tuple(schedule.batch_at(step, inputs.recorded)), recorded=True
                    )
                else:
                    with clock.phase("rollout"):
                        batch = schedule.batch_at(step, inputs.prompts)
                        sampled = sample(sampler, batch, inputs.prompts, step, config.max_resamples)
                    clock.count("rollout", sampled.tokens)
                measured = update(config, inputs, watch, sampled, schedule.lr_at(step))
                trail = watch.after(trail, sampled, measured)
                advance(
                    step + 1,
                    f"reward {measured['reward']:.3f}, held out {trail.history[-1].reward:.3f}",
                )
        report = watch.finish(trail)
    backend.close()
    return report


def update(
    config: Config, inputs: Inputs, watch: Watch, sampled: Sampled, lr: float
) -> dict[str, float]:
    """The updates from one batch of rollouts, and what they
    did; none where no group has a signal, nor the KL one.
    """
    backend, clock, loss = watch.backend, watch.clock, config.objective(inputs.task)
    rough, offline = config.quantize is not None, bool(inputs.recorded)
    with clock.phase("reference"):
        batch = experiences(backend, sampled.groups, loss, offline=offline)
    measured = metrics.of_rollouts(sampled) | metrics.of_policy(batch)
    signal = any(one.advantage for one in batch)
    if not signal and not (loss.beta > 0 and gates.moved(measured, config.dtype, quantized=rough)):
        return measured
    for inner in range(config.num_iterations):
        with clock.phase("train"):
            found = backend.policy_gradient(batch, loss)
            stepped = backend.optim_step(lr, config.optimizer)
        clock.count("train", int(found.metrics["tokens"]))
        measured |= metrics.of_update(batch, found, inner) | dict(stepped) | {"lr": lr}
        watch.enforce(
            gates.of_update(
                measured, inner, config.dtype, quantized=rough, offline=offline, signal=signal
            )
        )
        batch = carry_old(batch, found.logprobs)
    return measured
