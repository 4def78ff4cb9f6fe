"""What each rank runs in the test of a sharded base: shard_script.py MODEL.

Each rank prints an object in a line: what it holds, and rank 0 how far it is from one process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
from torch import nn

from offapi import backend as seam
from offapi.backend import Backend, Sampling
from offapi.backends.torch_backend.sharded import Lockstep, held
from offapi.episodes import Episode, Segment
from offapi.errors import OffapiError
from offapi.launch import find_launch
from offapi.model_spec import Limits, LoraSpec, ModelSpec
from offapi.optimizer import AdamW, Arrays
from offapi.policy_loss import Experience, PolicyLoss
from offapi.ranks.member import Member
from offapi.ranks.messages import Command, LoadModel, OptimStep
from offapi.ranks.ranked_backend import Crew
from offapi.ranks.session import joined, leading

STEP = AdamW(eps=1e-5)
LOSS = PolicyLoss("grpo", beta=0.1, max_tokens=6)
SAMPLING = Sampling(6, (257,), temperature=1.0, seed=3)
PROMPTS = ((*range(40, 60), 1, 2), (*range(40, 60), 9), (70, 71, 72))
UNKNOWN = Episode("no", (Segment((1,), False), Segment((10**6,), True)))


def rows(*lengths: int) -> list[Episode]:
    """Return rows with that many tokens to learn."""
    learned = [tuple(9 + (i + j) % 50 for j in range(n)) for i, n in enumerate(lengths)]
    return [
        Episode(str(i), (Segment((3 + i, 4), False), Segment(row, True)))
        for i, row in enumerate(learned)
    ]


def train(backend: Backend) -> Arrays:
    """Take steps of both kinds, some of which leave a rank with less than another, or nothing."""
    for batch in (rows(30, 9, 5, 7, 8), rows(12), rows(40, 40, 3)):
        backend.forward_backward(batch)
        backend.optim_step(1e-2, STEP)
    for prompts in (PROMPTS, PROMPTS[:1]):
        experiences = []
        for group in sorted(backend.rollout(prompts, 2, SAMPLING), key=lambda each: each.prompt):
            for i, one in enumerate(group.completions):
                sampled = Segment(one.tokens, True, one.logprobs, one.sampling_mask)
                episode = Episode(f"{i}", (Segment(prompts[group.prompt], False), sampled))
                (reference_T,) = backend.score([episode], "reference")
                experiences.append(Experience(episode, 1.0 - 2 * i, reference=reference_T))
        backend.policy_gradient(experiences, LOSS)
        backend.optim_step(1e-2, STEP)
    return backend.state().adapter


def apart(one: Arrays, other: Arrays) -> float:
    """Return the largest difference of two adapters."""
    return max(float(np.abs(one[name] - other[name]).max()) for name in other)


def failure(backend: Backend, batch: list[Episode]) -> str:
    """Return what an impossible batch raises."""
    try:
        backend.forward_backward(batch)
    except (OffapiError, ValueError, RuntimeError) as error:
        return str(error)
    return ""


def frozen_bytes(backend: Backend) -> int:
    """Return the bytes of the base's weights that this process holds."""
    return weight_bytes(backend.policy.model)  # type: ignore[attr-defined]


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of the model's frozen weights that this process holds."""
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    return sum(held(weight).untyped_storage().nbytes() for weight in frozen)


def compare(crew: Crew, spec: ModelSpec) -> dict[str, object]:
    """Train on all ranks and alone, and return what to compare."""
    alone = seam.load("torch", spec)
    expected, found = train(alone), {}
    for implementation in ("packed", "library"):
        asked = replace(spec, shard=True, implementation=implementation)
        ranked = crew.load("torch", asked)
        found[implementation] = apart(train(ranked), expected)
    errors = [failure(ranked, [*rows(30, 9), UNKNOWN]), failure(ranked, [UNKNOWN, *rows(30, 9)])]
    scored, scored_alone = (np.concatenate(each.score(rows(5, 6, 7))) for each in (ranked, alone))
    return {
        "apart": found,
        "errors": errors,
        "whole": frozen_bytes(alone),
        "nats": float(np.abs(scored - scored_alone).max()),
    }


def main() -> None:
    """Be one of the ranks."""
    launch, sizes, gathered = find_launch(), [], []
    assert launch is not None
    do, step = Member.do, Lockstep.step

    @contextmanager
    def measured(self: Lockstep, backward: bool = False) -> Iterator[None]:
        with step(self, backward):
            yield
            gathered.append(weight_bytes(self._model))

    def watched(self: Member, command: Command) -> object:
        result = do(self, command)
        if isinstance(command, LoadModel | OptimStep):
            sizes.append(frozen_bytes(self.backend))
        return result

    Member.do = watched  # type: ignore[method-assign]
    Lockstep.step = measured
    limits = Limits(train_tokens=16, logit_rows=4)
    spec = ModelSpec(Path(sys.argv[1]), lora=LoraSpec(rank=4), device="cpu", limits=limits)
    said: dict[str, object] = {}
    with joined(launch, lambda: sys.exit("nothing here is bound")) as member:
        if launch.rank:
            member.follow()
        else:
            with leading(member) as crew:
                said = compare(crew, spec)
    line = orjson.dumps(
        {"rank": launch.rank, "held": sizes, "gathered": max(gathered), **said}
    ).decode()
    os.write(1, f"{line}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main()
