"""Gates before a GRPO step is timed: the arms do the same work, and offapi's shortcuts are exact.

In one process, offapi runs first, then the peer's own library on the same weights and adapter (not
a new one, whose B is zero). They compare greedy tokens, logprobs of what was sampled, and the
adapter's gradient.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpo_mlx
import grpo_torch
import pairs
from grpo_common import ALPHA, RANK
from pairs import Clock, Result, finish

if TYPE_CHECKING:
    from offapi.backend import Backend, Sampling
    from offapi.optimizer import Arrays
    from offapi.policy_loss import Experience, PolicyLoss

LIMITS = {
    "greedy tokens that differ": 0.0,
    "sampler against trainer, nats": 1e-4,
    "gradient, relative error": 1e-5,
}
SPREAD = 0.01  # standard deviation of the adapter's B in the gates


def load(work: Result) -> Backend:
    """Load offapi's backend with a new adapter."""
    from offapi import backend
    from offapi.model_spec import LoraSpec, ModelSpec

    spec = ModelSpec(Path(work["model"]), lora=LoraSpec(RANK, ALPHA), device=work["device"])
    return backend.load(work["backend"], spec)


def sampling(work: Result, temperature: float) -> Sampling:
    """Return a sampling of as many tokens as asked for: none ends a completion."""
    from offapi.backend import Sampling

    return Sampling(max_tokens=work["completion"], stop_ids=(), temperature=temperature)


def loss(work: Result) -> PolicyLoss:
    """Return GRPO's own loss, as in the peers' arms."""
    from offapi.policy_loss import PolicyLoss

    return PolicyLoss("grpo", max_tokens=work["completion"])


def given(work: Result) -> list[Experience]:
    """Return the given completions with their advantages."""
    from offapi.episodes import Episode, Segment
    from offapi.policy_loss import Experience

    batch: list[Experience] = []
    for prompt, completions in zip(last_prompts(work), work["completions"], strict=True):
        for completion, advantage in zip(completions, work["advantages"], strict=True):
            segments = (Segment(tuple(prompt), False), Segment(tuple(completion), True))
            batch.append(Experience(Episode(str(len(batch)), segments), advantage))
    return batch


def last_prompts(work: Result) -> list[list[int]]:
    """Return the prompts of the last step, whose completions are given."""
    prompts: list[list[int]] = work["tokens"][-work["prompts"] :]
    return prompts


def run(work: Result, folder: Path) -> None:
    """Measure all gates, in the child process."""
    clock = Clock("cpu")
    clock.start()
    answers, apart, adapter, gradient = ours(work)
    peer = grpo_torch if work["backend"] == "torch" else grpo_mlx
    their_answers, their_gradient = peer.gates(work, last_prompts(work), adapter)
    clock.stop()
    differing = sum(
        a != b
        for own, their in zip(answers, their_answers, strict=True)
        for a, b in zip(own, their, strict=True)
    )
    values = (float(differing), apart, distance(gradient, their_gradient))
    finish(folder, clock, sum(map(len, answers)), gates=dict(zip(LIMITS, values, strict=True)))


def ours(work: Result) -> tuple[list[list[int]], float, Arrays, Arrays]:
    """Return greedy tokens, sampler against trainer in nats, the adapter and its gradient."""
    import numpy as np

    from offapi.episodes import Episode, Segment
    from offapi.optimizer import AdamW, TrainState

    backend, prompts = load(work), last_prompts(work)
    draw = np.random.default_rng(0)
    state = backend.state().adapter
    adapter = {
        name: np.float32(SPREAD) * draw.standard_normal(array.shape, np.float32)
        if ".lora_B." in name
        else array
        for name, array in sorted(state.items())
    }
    backend.restore(TrainState(adapter))
    answers = {
        group.prompt: list(group.completions[0].tokens)
        for group in backend.rollout(prompts, 1, sampling(work, 0))
    }
    rollouts = [
        (prompts[group.prompt], completion)
        for group in backend.rollout(prompts, work["group"], sampling(work, 1))
        for completion in group.completions
    ]
    episodes = [
        Episode(str(i), (Segment(tuple(prompt), False), Segment(c.tokens, True, c.logprobs)))
        for i, (prompt, c) in enumerate(rollouts)
    ]
    scored = zip(backend.score(episodes), rollouts, strict=True)
    apart = max(float(np.abs(values - np.array(c.logprobs)).max()) for values, (_, c) in scored)
    backend.policy_gradient(given(work), loss(work))
    backend.optim_step(0.0, AdamW(max_grad_norm=0.0))
    # After one step from nothing, the first moment is (1 - beta1) times the gradient.
    gradient = {
        name: array / np.float32(1 - AdamW().beta1)
        for name, array in backend.state().exp_avg.items()
    }
    backend.close()
    return [answers[i] for i in range(len(prompts))], apart, adapter, gradient


def distance(ours: Arrays, theirs: Arrays) -> float:
    """Return |ours - theirs| / |theirs| over all matrices."""
    import numpy as np

    def norm(arrays: list[Any]) -> float:
        return float(np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in arrays)))

    if ours.keys() != theirs.keys():
        return float("inf")
    return norm([ours[name] - theirs[name] for name in ours]) / norm(list(theirs.values()))


def check(gates: dict[str, float]) -> dict[str, float]:
    """Return the gates' values; exit 3 unless every gate holds."""
    for name, value in gates.items():
        holds = value <= LIMITS[name]
        pairs.note(
            f"gate: {name} {value:.2g}, at most {LIMITS[name]:g}: {'holds' if holds else 'FAILS'}"
        )
    if not all(value <= LIMITS[name] for name, value in gates.items()):
        pairs.note("error: a gate failed: the arms do not do the same work, so nothing was timed.")
        sys.exit(3)
    return gates
