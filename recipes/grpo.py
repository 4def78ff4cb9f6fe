"""GRPO: reinforcement learning from a score; the model learns from its own attempts.

Group relative policy optimization (Shao et al., arXiv 2402.03300). Each step takes `batch_size`
prompts and samples `num_generations` completions of each from the current policy: a group. The
task's checks, or its `reward`, score them in other processes. A completion's advantage is its
reward relative to its group's, and `num_iterations` policy-gradient updates follow. Held-out
documents are scored every `eval_every` steps, and the adapter of the best evaluation is the result.
Gates (`offapi.rl.gates`) stop a run that could not mean anything; an alarm stops one whose reward
is being gamed. The rules of the loss, with their papers, are in `offapi.policy_loss`.

Deviations from the papers:

- The default rule is Dr. GRPO (Liu et al., arXiv 2503.20783), which divides neither by the group's
  standard deviation nor by a completion's length.
- `loss.beta` is 0 by default. The KL to the reference is measured even then. With beta above 0 its
  gradient is that of KL(policy || reference) (arXiv 2512.21852).
- A LoRA adapter is trained, and the reference is the model that training started from, fixed.
- Where a rule uses the standard deviation, it is Bessel's plus 1e-4, as in TRL. A group of equal
  rewards has advantages of exactly 0; a step of such groups alone trains on the KL or not at all.
- Truncated importance sampling (`loss.tis_cap`) corrects for differences between sampler and
  trainer. Their logprobs are compared on the same weights in every step (gate `mismatch`).
- With top_k, top_p or min_p, the policy is renormalised over the tokens that sampling kept.
- With `constrain`, completions are drawn from what the grammar allows, and logprobs are taken over
  the allowed tokens on both sides, as with top_k; held-out answers are bound too.
- A completion whose reward is None is left out of its group: no advantage, no loss.
- DAPO's dynamic sampling (`max_resamples`, with a limit) and soft length limit (`overlong`) (Yu et
  al., arXiv 2503.14476) are keys of their own, for every rule.
- Offline (`rollouts`), graded traces of earlier policies replace sampling.
- A task with tools is learned in episodes of several turns: the loss is on sampled tokens alone.
  With `credit = "turn"` each turn has an advantage of its own, see docs/agents.md.

Left out: value models, and learned reward models.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from offapi.adapter import doubt_base
from offapi.agent.episode_host import EpisodeHost
from offapi.agent.unfinished import Agent
from offapi.backend import Backend
from offapi.chat.chat import Chat
from offapi.chat.cut_off import why_endless
from offapi.constrain import Constraints
from offapi.evaluation.accuracy import Report
from offapi.models.store import Model, get
from offapi.progress import LOADING, Progress
from offapi.rl import gates, metrics, rollout_files
from offapi.rl.agent_rollouts import AgentSampler
from offapi.rl.gates import Problem
from offapi.rl.heldout import HeldOutSet
from offapi.rl.monitor import Figures, Monitor, Trail, find_learned
from offapi.rl.prompts import prompts, read, require_gold
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
    recorded: tuple[RolloutGroup, ...]  # offline: the groups sampled before
    constraints: Constraints | None = None
    agent: Agent | None = None  # of a task with tools


def prepare(config: Config, progress: Progress) -> Inputs:
    """Read and check the inputs."""
    task, model = load_task(config.task), get(config.model)
    gold = config.gold == "reward"
    rewarded(task, gold=gold)  # refuses a task with nothing to reward, before anything is written
    config.check(task)
    if config.adapter and (doubt := doubt_base(config.adapter, model.name, config.quantize)):
        progress.say(doubt)
    train_rows, heldout_rows = read(config.data, config.val, task, config.seed, config.adapter)
    if gold:
        require_gold((*train_rows, *heldout_rows))
    chat = Chat.load(model.path, config.template)
    if endless := why_endless(chat):
        progress.say(f"No answer will end: {endless.what} {endless.next_step}")
    agent = config.agent(task, chat)
    writer = chat if agent is None else agent.format
    asked, heldout = (
        prompts(rows, task, writer, config.max_tokens, config.on_long, progress)
        for rows in (train_rows, heldout_rows)
    )
    recorded = rollout_files.read(config.rollouts, task, chat) if config.rollouts else ()
    bound = None if config.constrain == "off" else Constraints.of(task, chat, config.constrain)
    return Inputs(task, model, chat, asked, heldout, tuple(recorded), bound, agent)


def run(job: Job[Config, Inputs]) -> Report | None:
    """Train, evaluate and keep the best adapter.

    Returns the held-out documents' report where all have gold.
    """
    config, inputs, failed = job.config, job.inputs, job.folder.path / "reward-failed.json"
    spec = config.spec(inputs.model)
    job.progress.say(LOADING)
    backend = job.load(job.backend_name, spec)
    schedule = config.schedule(len(inputs.recorded or inputs.prompts))
    sampling = config.sampling(inputs.task, inputs.chat)
    with ExitStack() as stack:
        gold = config.gold == "reward"
        pool = Rewards(config.task, config.workers, config.reward_seconds, failed, gold=gold)
        rewards, agent = stack.enter_context(pool), None
        if inputs.agent is not None:
            agent = AgentSampler(inputs.agent, stack.enter_context(EpisodeHost(config.task)))
        sampler = Sampler(
            backend,
            inputs.chat,
            rewards,
            config.num_generations,
            sampling,
            config.overlong,
            inputs.constraints,
            agent,
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
    """Sample, update and decide, step by step; return the report of the best evaluation."""
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
            heldout_reward = trail.history[-1].reward
            advance(step + 1, f"reward {measured['reward']:.3f}, held out {heldout_reward:.3f}")
    return log.write_end(find_learned(trail.history))


def begin(job: Job[Config, Inputs], log: RunLog, monitor: Monitor, heldout: HeldOutSet) -> Trail:
    """Resume from the last checkpoint, or score the held-out documents before any step."""
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
    """Return the groups of a step: sampled from the policy or, offline, recorded before."""
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
    """Make the updates from one batch of rollouts; return their metrics and problems.

    Makes none where neither a group nor the KL has a signal.
    """
    config, loss = job.config, job.config.objective(job.inputs.task)
    rough, offline = config.quantize is not None, bool(job.inputs.recorded)
    with clock.phase("reference"):
        batch = experiences(backend, sampled.groups, loss, offline=offline, credit=config.credit)
    measured = metrics.of_rollouts(sampled) | metrics.of_policy(batch)
    problems: list[Problem] = []
    signal = any(experience.signal for experience in batch)
    if not signal and not (loss.beta > 0 and gates.moved(measured, config.dtype, quantized=rough)):
        return measured, problems
    for inner in range(config.num_iterations):
        with clock.phase("train"):
            gradient = backend.policy_gradient(batch, loss)
            stepped = backend.optim_step(lr, config.optimizer)
        clock.count("train", int(gradient.metrics["tokens"]))
        measured |= metrics.of_update(batch, gradient, inner) | dict(stepped) | {"lr": lr}
        problems += gates.of_update(
            measured, inner, config.dtype, quantized=rough, offline=offline, signal=signal
        )
        batch = carry_old(batch, gradient.logprobs)
    return measured, problems
