"""Train a model of random weights in a process of its own, and print its plan and its memory.

`plan_script.py BACKEND MODE FOLDER`, where MODE is `kept` or `recomputed`: JSON, by phase, with the bytes over the loaded model, planned and at
the peak, and the tokens, planned and counted.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from llama_shapes import llama_shapes
from safetensors.numpy import save_file

from offapi.backend import Backend, Sampling, load
from offapi.episodes import Episode, Segment
from offapi.model_spec import Limits, LoraSpec, ModelSpec
from offapi.optimizer import AdamW
from offapi.policy_loss import Experience, PolicyLoss
from offapi.training import forecast
from offapi.training.forecast import Machine, Rounds, Work
from offapi.training.schedule import Schedule

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 640,
    "intermediate_size": 1792,
    "num_attention_heads": 10,
    "num_key_value_heads": 5,
    "num_hidden_layers": 4,
    "vocab_size": 8192,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
}
ROW, ROWS, LEARNED = 256, 4, 64  # tokens, rows of a batch
PROMPT, SHARED, PROMPTS, GROUP, ANSWER = 128, 32, 2, 4, 96
STEPS = 2


def main(name: str, mode: str, folder: Path) -> None:
    """Print what each phase was planned to take and took."""
    write(folder)
    limits, recomputed = Limits(train_tokens=ROW * ROWS, logit_rows=64), mode == "recomputed"
    spec = ModelSpec(folder, lora=LoraSpec(), limits=limits, device="cpu", checkpointing=recomputed)
    backend = load(name, spec)
    machine = Machine.of(backend)
    forget_peak()
    watch = Watch(backend, machine, spec, resident("VmRSS"))
    phases = {} if recomputed else {"reinforcement": watch.reinforcement()}
    phases["training"] = watch.training()
    print(orjson.dumps(phases).decode())


def write(folder: Path) -> None:
    """Write config and random weights."""
    (folder / "config.json").write_bytes(orjson.dumps(CONFIG))
    draw = np.random.default_rng(0)
    tensors = {
        name: 0.02 * draw.standard_normal(shape, np.float32) if len(shape) > 1 else np.ones(shape)
        for name, shape in llama_shapes(CONFIG).items()
    }
    halves = {name: array.astype(np.float16) for name, array in tensors.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})


@dataclass(frozen=True)
class Watch:
    """A loaded model with its machine, what it was loaded from, and what the process took then."""

    backend: Backend
    machine: Machine
    spec: ModelSpec
    loaded: int  # bytes

    def training(self) -> dict[str, Any]:
        """Train as the supervised recipes do."""
        rows = [row(i, ROW) for i in range(ROWS)]
        batch = [
            Episode(str(i), (Segment(tokens[:-LEARNED], False), Segment(tokens[-LEARNED:], True)))
            for i, tokens in enumerate(rows)
        ]
        schedule = Schedule(ROWS, ROWS, float(STEPS), 1e-4, 1, 0)
        lengths = [len(tokens) for tokens in rows]
        plan = forecast.training(self.machine, lengths, schedule, self.spec)
        forget_peak()
        for _ in range(STEPS):
            self.backend.forward_backward(batch)
            self.backend.optim_step(1e-4, AdamW())
        return self.compared(plan, STEPS * sum(lengths), 0)

    def reinforcement(self) -> dict[str, Any]:
        """Sample and train as GRPO does, each completion to its full length."""
        prompts = [(*row(0, SHARED), *row(i + 1, PROMPT - SHARED)) for i in range(PROMPTS)]
        rounds = Rounds([PROMPT] * PROMPTS, [], ANSWER, GROUP, 1, 10, SHARED)
        schedule = Schedule(PROMPTS, PROMPTS, 1.0, 1e-4, 1, 0)
        plan = forecast.reinforcement(self.machine, rounds, schedule, self.spec)
        forget_peak()
        sampling = Sampling(max_tokens=ANSWER, stop_ids=(), temperature=1.0)
        groups = list(self.backend.rollout(prompts, GROUP, sampling))
        drawn = [(prompts[group.prompt], each) for group in groups for each in group.completions]
        episodes = [
            Episode(str(i), (Segment(prompt, False), Segment(each.tokens, True, each.logprobs)))
            for i, (prompt, each) in enumerate(drawn)
        ]
        references = self.backend.score(episodes, by="reference")
        batch = [
            Experience(episode, (-1.0) ** i, reference=reference)
            for i, (episode, reference) in enumerate(zip(episodes, references, strict=True))
        ]
        self.backend.policy_gradient(batch, PolicyLoss(beta=0.1))
        self.backend.optim_step(1e-4, AdamW())
        decoded = sum(len(each.tokens) for _, each in drawn)
        return self.compared(plan, PROMPTS * PROMPT + decoded, decoded)

    def compared(self, plan: Work, trained: int, decoded: int) -> dict[str, Any]:
        """Return the plan, and what was."""
        return {
            "planned": plan.bytes - self.machine.used,
            "peak": resident("VmHWM") - self.loaded,
            "recomputed": plan.recomputed,
            "planned_tokens": [plan.trained, plan.decoded],
            "tokens": [trained, decoded],
        }


def row(seed: int, tokens: int) -> tuple[int, ...]:
    """Return tokens that no other seed begins with."""
    return tuple(3 + (seed * 1009 + i * 7919) % 8000 for i in range(tokens))


def forget_peak() -> None:
    """Give what is free back to Linux, and let it count the peak of resident memory from here."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def resident(key: str) -> int:
    """Return what Linux says of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
