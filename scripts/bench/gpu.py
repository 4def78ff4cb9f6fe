"""Time decoding and the gradient of a GRPO step on a GPU, with and without CUDA graphs.

Models have real shapes and random weights (nothing is downloaded), with an adapter of rank 16 on
every linear layer. The limit is set by memory: weights and keys read once per token at --bandwidth.
Left out: other trainers (`grpo.py`).

    \b
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

from offapi.backend import Backend, Sampling, load
from offapi.episodes import Episode, Segment
from offapi.model_spec import DType, Limits, LoraSpec, ModelSpec
from offapi.optimizer import TrainState
from offapi.policy_loss import Experience, PolicyLoss


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes, under the names of its configuration."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int


SHAPES = {"135M": Shape(576, 1536, 30, 9, 3, 49152), "0.5B": Shape(896, 4864, 24, 14, 2, 151936)}


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option(
    "--shape",
    type=click.Choice(list(SHAPES)),
    default="135M",
    show_default=True,
    help="Size of the model.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Number format of the model.",
)
@click.option("--device", default="cuda", show_default=True, help="Device that torch computes on.")
@click.option("--prompts", "count", default=8, show_default=True, help="Number of prompts.")
@click.option("--group", default=8, show_default=True, help="Completions per prompt.")
@click.option(
    "--prompt-tokens",
    default=512,
    show_default=True,
    help="Tokens per prompt, half of them shared by all prompts.",
)
@click.option("--completion-tokens", default=128, show_default=True, help="Tokens per completion.")
@click.option("--rows", default=64, show_default=True, help="Completions decoded side by side.")
@click.option("--repeats", default=3, show_default=True, help="Timed runs of each measurement.")
@click.option(
    "--bandwidth", type=float, help="Bandwidth of the device's memory, in GB/s, for the limit."
)
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
        return sum(len(done.tokens) for each in groups for done in each.completions)

    batch = experiences(prompts, group, completion_tokens)

    def train() -> int:
        backend.policy_gradient(batch, PolicyLoss("grpo", max_tokens=completion_tokens))
        backend.restore(TrainState(backend.state().adapter))  # drops the gradient
        return len(batch) * completion_tokens

    rates = {"decode": rate(decode, repeats), "train": rate(train, repeats)}
    nats = [apart(backend, prompts, group, sampling)]
    plain(backend)
    nats.append(apart(backend, prompts, group, sampling))
    rates["decode, not captured"] = rate(decode, repeats)
    report: dict[str, Any] = {
        "tokens_per_second": {name: round(value) for name, value in rates.items()}
    }
    report |= {
        "ratio": round(rates["decode"] / rates["decode, not captured"], 2),
        "sampler_to_trainer_nats": nats,
    }
    if bandwidth is not None:
        own = prompt_tokens / 2 + completion_tokens / 2  # a row's own keys, on average
        size = bytes_read(SHAPES[shape], dtype, rows, own, prompt_tokens / 2)
        limit = rows / (size / bandwidth / 1e9)
        report |= {"limit": round(limit), "of_limit": round(rates["decode"] / limit, 3)}
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
    """Write a model of this shape with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**asdict(shape), max_position_embeddings=8192, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def trained(backend: Backend) -> Backend:
    """Give the backend an adapter as after training, with B not zero."""
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
    """Draw prompts whose first half is the same."""
    noise = np.random.default_rng(0)
    shared: list[int] = noise.integers(0, 40000, length // 2).tolist()
    return [shared + noise.integers(0, 40000, length - length // 2).tolist() for _ in range(count)]


def experiences(prompts: Sequence[Sequence[int]], group: int, length: int) -> list[Experience]:
    """Draw completions, half of each group with advantage 1, half with -1."""
    noise, batch = np.random.default_rng(1), list[Experience]()
    for prompt in prompts:
        for i in range(group):
            segments = (
                Segment(tuple(prompt), False),
                Segment(tuple(noise.integers(0, 40000, length).tolist()), True),
            )
            batch.append(Experience(Episode(str(len(batch)), segments), 1.0 - 2.0 * (i % 2)))
    return batch


def rate(work: Callable[[], int], repeats: int) -> float:
    """Return tokens per second: the median of `repeats`, after an untimed run."""
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
    """Return the largest distance of the sampler's logprobs from the trainer's, in nats."""
    rollouts = [
        (prompts[sampled.prompt], completion)
        for sampled in backend.rollout(prompts, group, sampling)
        for completion in sampled.completions
    ]
    episodes = [
        Episode(str(i), (Segment(tuple(prompt), False), Segment(completion.tokens, True)))
        for i, (prompt, completion) in enumerate(rollouts)
    ]
    largest = 0.0
    for logprobs_T, (_, completion) in zip(backend.score(episodes), rollouts, strict=True):
        distances_T = np.abs(logprobs_T - np.array(completion.logprobs))
        largest = max(largest, float(distances_T.max()))
    return largest


def plain(backend: Backend) -> None:
    """Make the backend decode as on a CPU: without graphs and without a merged copy."""
    policy: Any = vars(backend)["policy"]
    policy.merged, policy.prepare_rollout = None, lambda: None
    type(policy).capturable = property(lambda _: False)


def bytes_read(shape: Shape, dtype: str, rows: int, own: float, shared: float) -> float:
    """Return the bytes that a decoding step reads at least.

    These are the weights, each row's own keys and values, and the shared ones once.
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
