"""Decoding and the gradient of a GRPO step on a GPU:
tokens a second, beside steps not captured, and the limit.

Models of real shapes with random weights (nothing is downloaded), an adapter of rank 16 on every
linear layer. The limit is that of memory: weights and keys read once a token at --bandwidth. Left
out: other trainers (`grpo.py`).

    python scripts/bench/gpu.py --bandwidth 4300
    python scripts/bench/gpu.py --shape 0.5B --dtype bfloat16 --prompts 32 --rows 256
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import click
import numpy as np
import orjson
import torch

from offapi.backend import Backend, DType, Limits, LoraSpec, ModelSpec, Sampling, TrainState, load
from offapi.episodes import Episode, Segment
from offapi.policy_loss import Experience, PolicyLoss


@dataclass(frozen=True)
class Shape:
    """A Llama's numbers, under the names of its configuration."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int


SHAPES = {"135M": Shape(576, 1536, 30, 9, 3, 49152), "0.5B": Shape(896, 4864, 24, 14, 2, 151936)}


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option("--shape", type=click.Choice(list(SHAPES)), default="135M", show_default=True)
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True
)
@click.option("--device", default="cuda", show_default=True)
@click.option("--prompts", "count", default=8, show_default=True)
@click.option("--group", default=8, show_default=True, help="Completions of a prompt.")
@click.option(
    "--prompt-tokens", default=512, show_default=True, help="Half of them shared by all prompts."
)
@click.option("--completion-tokens", default=128, show_default=True)
@click.option("--rows", default=64, show_default=True, help="Completions decoded side by side.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--bandwidth", type=float, help="GB/s of the device's memory, for the limit.")
def main(
    shape: str,
    dtype: str,
    device: str,
    count: int,
    group: int,
    prompt_tokens: int,
    completion_tokens: int,
    rows: int,
    repeats: int,
    bandwidth: float | None,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = write(Path(name), SHAPES[shape])
        limits = Limits(rollout_rows=rows)
        spec = ModelSpec(
            folder, lora=LoraSpec(), dtype=cast(DType, dtype), device=device, limits=limits
        )
        backend = trained(load("torch", spec))
    prompts, sampling = draw(count, prompt_tokens), Sampling(completion_tokens, (), temperature=1.0)

    def decode() -> int:
        groups = backend.rollout(prompts, group, sampling)
        return sum(len(one.tokens) for each in groups for one in each.completions)

    batch = experiences(prompts, group, completion_tokens)

    def train() -> int:
        backend.policy_gradient(batch, PolicyLoss("grpo", max_tokens=completion_tokens))
        backend.restore(TrainState(backend.state().adapter))  # drops the gradient
        return len(batch) * completion_tokens

    found = {"decode": rate(decode, repeats), "train": rate(train, repeats)}
    nats = [apart(backend, prompts, group, sampling)]
    plain(backend)
    nats.append(apart(backend, prompts, group, sampling))
    found["decode, not captured"] = rate(decode, repeats)
    report: dict[str, Any] = {
        "tokens_per_second": {name: round(value) for name, value in found.items()}
    }
    report |= {
        "ratio": round(found["decode"] / found["decode, not captured"], 2),
        "sampler_to_trainer_nats": nats,
    }
    if bandwidth is not None:
        length = prompt_tokens / 2 + completion_tokens / 2  # of a row's own keys, on average
        limit = rows / (
            read(SHAPES[shape], dtype, rows, length, prompt_tokens / 2) / bandwidth / 1e9
        )
        report |= {"limit": round(limit), "of_limit": round(found["decode"] / limit, 3)}
    report |= {
        "train_tokens": backend.limits.micro_batch,
        "peak_gib": round(backend.memory().peak / 2**30, 2),
    }
    name = torch.cuda.get_device_name() if device == "cuda" else device
    click.echo(
        orjson.dumps(
            {"device": name, "torch": torch.__version__, "shape": shape, "dtype": dtype} | report
        )
    )


def write(folder: Path, shape: Shape) -> Path:
    """A model of this shape with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**asdict(shape), max_position_embeddings=8192, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def trained(backend: Backend) -> Backend:
    """With an adapter as after training: B not zero."""
    noise, adapter = np.random.default_rng(0), backend.state().adapter
    moved = {
        name: np.float32(0.01) * noise.standard_normal(array.shape, np.float32)
        if ".lora_B." in name
        else array
        for name, array in adapter.items()
    }
    backend.restore(TrainState(moved))
    return backend


def draw(count: int, length: int) -> list[list[int]]:
    """Prompts whose first half is the same."""
    noise = np.random.default_rng(0)
    shared: list[int] = noise.integers(0, 40000, length // 2).tolist()
    return [shared + noise.integers(0, 40000, length - length // 2).tolist() for _ in range(count)]


def experiences(prompts: Sequence[Sequence[int]], group: int, length: int) -> list[Experience]:
    """Random completions, half of each group with advantage 1, half with -1."""
    noise, made = np.random.default_rng(1), list[Experience]()
    for prompt in prompts:
        for i in range(group):
            segments = (
                Segment(tuple(prompt), False),
                Segment(tuple(noise.integers(0, 40000, length).tolist()), True),
            )
            made.append(Experience(Episode(str(len(made)), segments), 1.0 - 2.0 * (i % 2)))
    return made


def rate(work: Callable[[], int], repeats: int) -> float:
    """Tokens a second: the median of `repeats`, after one that is not timed."""
    rates = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        tokens = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        rates.append(tokens / (time.perf_counter() - started))
    return median(rates[1:])


def apart(
    backend: Backend, prompts: Sequence[Sequence[int]], group: int, sampling: Sampling
) -> float:
    """The largest distance of the sampler's logprobs from the trainer's, in nats."""
    done = [
        (prompts[g.prompt], one)
        for g in backend.rollout(prompts, group, sampling)
        for one in g.completions
    ]
    episodes = [
        Episode(str(i), (Segment(tuple(prompt), False), Segment(one.tokens, True)))
        for i, (prompt, one) in enumerate(done)
    ]
    scored = zip(backend.score(episodes), done, strict=True)
    return max(float(np.abs(values - np.array(one.logprobs)).max()) for values, (_, one) in scored)


def plain(backend: Backend) -> None:
    """Decode as on a CPU from here on: no graphs, no merged copy."""
    policy: Any = vars(backend)["policy"]
    policy.merged, policy.prepare_rollout = None, lambda: None
    type(policy).capturable = property(lambda _: False)


def read(shape: Shape, dtype: str, rows: int, own: float, shared: float) -> float:
    """Bytes a decoding step reads at least: weights,
    each row's own keys and values, the shared ones once.
    """
    size = 4 if dtype == "float32" else 2
    dim = shape.hidden_size // shape.num_attention_heads
    linears = 2 * shape.hidden_size**2 + 2 * shape.hidden_size * dim * shape.num_key_value_heads
    linears += 3 * shape.hidden_size * shape.intermediate_size
    weights = shape.num_hidden_layers * linears + shape.vocab_size * shape.hidden_size
    keys = 2 * shape.num_hidden_layers * shape.num_key_value_heads * dim * (rows * own + shared)
    return float(size * (weights + keys))


if __name__ == "__main__":
    main()
