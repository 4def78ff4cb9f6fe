"""Both backends on real weights: the same logprobs, greedy tokens, losses, and one adapter."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from offapi import adapter
from offapi.backend import Backend, Sampling, load
from offapi.chat.chat import Chat
from offapi.demo.generate import generate
from offapi.demo.task import task
from offapi.episodes import Episode, Floats
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.models.store import Model
from offapi.optimizer import AdamW
from offapi.training.schedule import Schedule

TOLERANCE = 1e-3  # nats
PROMPTS, STEPS = 12, 6
WHOLE = 6  # one page in WHOLE is given whole, the others by their first line, to save time
MOVED = 6  # prompts that are scored with the adapter too
# Shorter than the task's own instructions, which would be most of every prompt.
SYSTEM = {"role": "system", "content": "Answer in JSON."}

pytestmark = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("mlx") is None,
    reason="needs both backends on one machine",
)


@dataclass(frozen=True)
class Trained:
    """What one backend computed from the same start."""

    logprobs: list[Floats]
    greedy: list[tuple[int, ...]]
    losses: list[float]
    adapter: Path
    adapted: list[Floats]  # logprobs of the first answers after training


@pytest.fixture(scope="module")
def episodes(demo_model: Model) -> list[Episode]:
    chat = Chat.load(demo_model.path)
    built = []
    for i, row in enumerate(generate("train", PROMPTS)):
        text = row.text if i % WHOLE == 0 else row.text.splitlines()[0]
        answer = {"role": "assistant", "content": task.answer_text(row.gold or {})}
        built.append(chat.episode(row.id, [SYSTEM, task.messages(text)[-1], answer]))
    return built


@pytest.fixture(scope="module")
def both(
    demo_model: Model, episodes: list[Episode], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Trained]:
    spec = ModelSpec(demo_model.path, lora=LoraSpec(8, 16.0), seed=1)
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: compute(load(name, spec), spec, episodes, folder / name) for name in ("torch", "mlx")
    }


def compute(backend: Backend, spec: ModelSpec, episodes: list[Episode], folder: Path) -> Trained:
    """Score the answers, decode 16 tokens greedily, take six steps, and save the adapter."""
    logprobs = backend.score(episodes)
    prompts = [row.segments[0].tokens for row in episodes]
    groups = {group.prompt: group for group in backend.rollout(prompts, 1, Sampling(16, (2,)))}
    schedule = Schedule(
        rows=len(episodes), batch_size=1, epochs=1.0, lr=1e-3, warmup_steps=2, seed=0
    )
    losses = []
    for step in range(STEPS):
        losses.append(backend.forward_backward(schedule.batch_at(step, episodes))["loss"])
        backend.optim_step(schedule.lr_at(step), AdamW())
    folder.mkdir()
    assert spec.lora is not None
    for name, content in adapter.encode(backend.state().adapter, spec.lora).items():
        (folder / name).write_bytes(content)
    adapted = backend.score(episodes[:MOVED])
    backend.close()
    greedy = [groups[i].completions[0].tokens for i in range(len(prompts))]
    return Trained(logprobs, greedy, losses, folder, adapted)


def farthest(one: list[Floats], other: list[Floats]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def test_logprobs_of_the_answers_agree(both: dict[str, Trained]) -> None:
    apart = farthest(both["torch"].logprobs, both["mlx"].logprobs)
    print(f"logprobs apart by at most {apart:.1e} nats on {PROMPTS} prompts")
    assert apart <= TOLERANCE


def test_greedy_completions_are_the_same_tokens(both: dict[str, Trained]) -> None:
    assert both["torch"].greedy == both["mlx"].greedy


def test_six_steps_have_the_same_losses(both: dict[str, Trained]) -> None:
    one, other = both["torch"].losses, both["mlx"].losses
    apart = max(abs(a - b) for a, b in zip(one, other, strict=True))
    print(f"losses apart by at most {apart:.1e} over {STEPS} steps: {one[0]:.4f} to {one[-1]:.4f}")
    assert apart <= TOLERANCE
    assert one[-1] < one[0] - 0.1  # they learned, so there was something to agree on


@pytest.mark.parametrize(("trained", "loaded"), [("torch", "mlx"), ("mlx", "torch")])
def test_an_adapter_moves_to_the_other_backend(
    both: dict[str, Trained], demo_model: Model, episodes: list[Episode], trained: str, loaded: str
) -> None:
    backend = load(loaded, ModelSpec(demo_model.path, adapter=both[trained].adapter))
    apart = farthest(backend.score(episodes[:MOVED]), both[trained].adapted)
    print(f"trained on {trained}, loaded on {loaded}: apart by at most {apart:.1e} nats")
    assert apart <= TOLERANCE
    moved = farthest(both[trained].logprobs[:MOVED], both[trained].adapted)
    assert moved > 0.1, "the adapter changes something"
