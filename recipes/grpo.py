"""GRPO: no answers, only documents and a score. The
model's own fresh attempts are scored while it trains.

Each step samples a group of completions for every prompt, rewards them by the task's checks in
processes of their own, and raises what did better than its group. Held-out documents and the
gates of `offapi.rl` watch whether it learns what is meant. Left out: agents' turns, value models.
"""

from __future__ import annotations

from dataclasses import dataclass

from offapi.backend import Backend, load
from offapi.chat.chat import Chat
from offapi.evaluation.accuracy import Report
from offapi.models.store import Model, get
from offapi.progress import Progress
from offapi.rl import gates, metrics, rollout_files
from offapi.rl.gates import Problem
from offapi.rl.heldout import HeldOutSet
from offapi.rl.monitor import Figures, Monitor, Trail, find_learned
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
from offapi.rl.run_log import RunLog
from offapi.rl.timings import Clock
from offapi.task import Task, load_task
from offapi.training import forecast_text
from offapi.training.job import Job
from offapi.training.schedule import Schedule

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


def prepare(config: Config, progress: Progress) -> Inputs:
    """Read and check the inputs."""
    task, model = load_task(config.task), get(config.model)
    rewarded(task)  # refuses a task with nothing to reward, before anything is written
    config.check(task)
    chat = Chat.load(model.path)
    rows, held = read(config.data, config.val, task, config.seed, config.adapter)
    asked, kept = (
        prompts(each, task, chat, config.max_tokens, config.on_long, progress)
        for each in (rows, held)
    )
    recorded = rollout_files.read(config.rollouts, task, chat) if config.rollouts else ()
    return Inputs(task, model, chat, asked, kept, tuple(recorded))


def run(job: Job[Config, Inputs]) -> Report | None:
    """Train, watch, and keep the best adapter; the
    held-out documents' report where all have gold.
    """
    config, inputs, failed = job.config, job.inputs, job.folder.path / "reward-failed.json"
    spec = config.spec(inputs.model)
    backend = load(job.backend_name, spec)
    schedule = config.schedule(len(inputs.recorded or inputs.prompts))
    sampling = config.sampling(inputs.task, inputs.chat)
    with Rewards(config.task, config.workers, config.reward_seconds, failed) as rewards:
        sampler = Sampler(
            backend, inputs.chat, rewards, config.num_generations, sampling, config.overlong
        )
        heldout = HeldOutSet.of(sampler, inputs.heldout)
        rounds = config.rounds(inputs.task, inputs.prompts, inputs.heldout)
        job.progress.say(forecast_text.reinforcement(backend, rounds, schedule, spec))
        report = train(job, sampler, heldout, schedule)
    backend.close()
    return report


def train(
    job: Job[Config, Inputs], sampler: Sampler, heldout: HeldOutSet, schedule: Schedule
) -> Report | None:
    """Sample, update and decide, step by step; the best look's adapter and report at the end."""
    log, clock = RunLog(job, sampler.backend), Clock()
    monitor = job.config.monitor(job.inputs.task, schedule)
    trail = begin(job, log, monitor, heldout)
    with job.progress.progress("training", schedule.steps) as advance:
        for step in range(trail.step, schedule.steps):
            sampled = draw(job, sampler, schedule, clock, step)
            measured, problems = update(job, sampler.backend, clock, sampled, schedule.lr_at(step))
            log.enforce(problems)
            seen, same_base = None, True
            if monitor.is_look(step + 1):
                with clock.phase("heldout"):
                    seen = heldout.look(step + 1)
                same_base = heldout.same_base()
            figures = Figures(sampled, measured, seen, same_base)
            decision = monitor.after(trail, figures)
            log.write_step(decision, figures, clock.take())
            trail = decision.trail
            said = f"reward {measured['reward']:.3f}, held out {trail.history[-1].reward:.3f}"
            advance(step + 1, said)
    return log.write_end(find_learned(trail.history))


def begin(job: Job[Config, Inputs], log: RunLog, monitor: Monitor, heldout: HeldOutSet) -> Trail:
    """Take up the last checkpoint; without one, look at the held-out documents before any step."""
    trail = log.restore(monitor.steps) if job.resume else None
    if trail is not None:
        log.raise_alarm(monitor.resume(trail))
        return trail
    decision = monitor.start(heldout.look(0), heldout.differing())
    log.write_start(decision)
    return decision.trail


def draw(
    job: Job[Config, Inputs], sampler: Sampler, schedule: Schedule, clock: Clock, step: int
) -> Sampled:
    """Return the groups of a step, fresh from the policy; offline, those recorded before."""
    inputs = job.inputs
    if inputs.recorded:
        return Sampled(tuple(schedule.batch_at(step, inputs.recorded)), recorded=True)
    with clock.phase("rollout"):
        batch = schedule.batch_at(step, inputs.prompts)
        sampled = sample(sampler, batch, inputs.prompts, step, job.config.max_resamples)
    clock.count("rollout", sampled.tokens)
    return sampled


def update(
    job: Job[Config, Inputs], backend: Backend, clock: Clock, sampled: Sampled, lr: float
) -> tuple[dict[str, float], list[Problem]]:
    """The updates from one batch of rollouts: what they did, and what is wrong with them.

    None where no group has a signal, nor the KL one.
    """
    config, loss = job.config, job.config.objective(job.inputs.task)
    rough, offline = config.quantize is not None, bool(job.inputs.recorded)
    with clock.phase("reference"):
        batch = experiences(backend, sampled.groups, loss, offline=offline)
    measured = metrics.of_rollouts(sampled) | metrics.of_policy(batch)
    problems: list[Problem] = []
    signal = any(one.advantage for one in batch)
    if not signal and not (loss.beta > 0 and gates.moved(measured, config.dtype, quantized=rough)):
        return measured, problems
    for inner in range(config.num_iterations):
        with clock.phase("train"):
            found = backend.policy_gradient(batch, loss)
            stepped = backend.optim_step(lr, config.optimizer)
        clock.count("train", int(found.metrics["tokens"]))
        measured |= metrics.of_update(batch, found, inner) | dict(stepped) | {"lr": lr}
        problems += gates.of_update(
            measured, inner, config.dtype, quantized=rough, offline=offline, signal=signal
        )
        batch = carry_old(batch, found.logprobs)
    return measured, problems
