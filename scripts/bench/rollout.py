"""Time greedy labelling with worked examples: offapi against transformers or mlx-lm.

All arms get the same prompts and must give the same tokens. The peer, HF generate or mlx-lm's
batch_generate, runs at several batch sizes, with its rows sorted by length; its best size counts.
Only tokens before the one that ends an answer count. Left out: sampling.

    \b
    python scripts/bench/rollout.py --threads 2
    python scripts/bench/rollout.py --backend mlx --json
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any

import click
import orjson
import pairs
from pairs import Clock, Result, finish

GOALS = {"tokens_per_second": 2.0}


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option(
    "--backend",
    type=click.Choice(["torch", "mlx"]),
    default="torch",
    show_default=True,
    help="Backend to measure.",
)
@click.option(
    "--peer-batch",
    "sizes",
    multiple=True,
    type=int,
    help="Rows that the peer decodes at once; may be repeated.  [default: 16, 32, 64]",
)
@click.option(
    "--model", default="demo", show_default=True, help="Model in the store, or its folder."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Documents with gold (JSONL).  [default: the demo's]",
)
@click.option(
    "--task", "task_file", type=click.Path(path_type=Path), help="Task file.  [default: the demo's]"
)
@click.option("--shots", default=4, show_default=True, help="Worked examples in the prompt.")
@click.option("--count", default=64, show_default=True, help="Number of documents.")
@click.option("--repeats", default=5, show_default=True, help="Pairs of runs.")
@click.option("--threads", default=2, show_default=True, help="CPU threads of every arm.")
@click.option("--device", default="auto", show_default=True, help="Device to compute on.")
@click.option("--json", "as_json", is_flag=True, help="Print one object on stdout.")
@click.option("--child", nargs=2, hidden=True)
def main(
    backend: str,
    sizes: tuple[int, ...],
    model: str,
    data: Path | None,
    task_file: Path | None,
    shots: int,
    count: int,
    repeats: int,
    threads: int,
    device: str,
    as_json: bool,
    child: tuple[str, str] | None,
) -> None:
    if child is not None:
        return run(child[0], Path(child[1]))
    work = pairs.or_exit(prepare, model, data, task_file, shots, count) | {
        "backend": backend,
        "device": device,
    }
    peer = "hf-generate" if backend == "torch" else "mlx-lm"
    peers = [f"{peer}-{size}" for size in sizes or (16, 32, 64)]
    results = pairs.interleave(__file__, ("offapi", *peers), repeats, work, threads)
    same = gate(results)
    flops = dict.fromkeys(
        results, work["flops"] + work["flops_per_token"] * results["offapi"][0]["tokens"]
    )
    report = pairs.summary(results, threads, flops)
    best = max(peers, key=lambda name: report["arms"][name]["tokens_per_second"])
    report |= {
        "ratios": {best: pairs.ratios(results["offapi"], results[best], "tokens_per_second")},
        "goals": GOALS,
        "documents": count,
        "same_tokens": same,
    }
    print(orjson.dumps(report).decode() if as_json else pairs.table(report))


def prepare(name: str, data: Path | None, task_file: Path | None, shots: int, count: int) -> Result:
    """Return the model, the prompts as tokens, and the arithmetic, with a common prefix once."""
    import rows

    from offapi.chat.chat import Chat
    from offapi.demo import generate as generator
    from offapi.episodes import common_prefix_length
    from offapi.models.store import get

    stored, task = get(name), rows.task(task_file)
    chat = Chat.load(stored.path)
    chosen = generator.generate("test", count) if data is None else rows.read(data, count, chat)
    prompts = [chat.prompt(task.messages(row.text, shots)) for row in chosen]
    shared = common_prefix_length(prompts)
    shapes, head = rows.weights(stored.path)
    linears = sum(height * width for height, width in shapes)
    return {
        "model": str(stored.path),
        "prompts": prompts,
        "stop_ids": chat.stop_ids,
        "max_tokens": task.max_answer_tokens,
        "flops": 2.0 * linears * (shared + sum(len(prompt) - shared for prompt in prompts)),
        "flops_per_token": 2.0 * (linears + head),
    }


def run(arm: str, folder: Path) -> None:
    """Run one arm, in the child process, after a warm-up on two documents."""
    work = orjson.loads((folder / "work.json").read_bytes())
    if arm == "offapi":
        device, answer = ours(work)
    elif arm.startswith("hf-generate"):
        device, answer = hf_generate(work, int(arm.rpartition("-")[2]))
    else:
        device, answer = mlx_lm(work, int(arm.rpartition("-")[2]))
    answer(work["prompts"][:2])
    clock = Clock(device)
    clock.start()
    answers = answer(work["prompts"])
    clock.stop()
    finish(folder, clock, sum(map(len, answers)), answers=answers)


def ours(work: Result) -> Any:
    """Return offapi's device and answers, as `offapi label` and `offapi eval` use it."""
    from offapi.backend import Sampling, load
    from offapi.model_spec import ModelSpec

    backend = load(work["backend"], ModelSpec(path=Path(work["model"]), device=work["device"]))
    sampling = Sampling(max_tokens=work["max_tokens"], stop_ids=tuple(work["stop_ids"]))

    def answer(prompts: list[list[int]]) -> list[list[int]]:
        groups = {
            group.prompt: group.completions[0] for group in backend.rollout(prompts, 1, sampling)
        }
        return [until_stop(groups[i].tokens, work["stop_ids"]) for i in range(len(prompts))]

    return backend.device, answer


def hf_generate(work: Result, size: int) -> Any:
    """Return transformers' device and answers, in left-padded batches sorted by length."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    device = "cuda" if work["device"] == "auto" and torch.cuda.is_available() else work["device"]
    device = "cpu" if device == "auto" else device
    model: Any = AutoModelForCausalLM.from_pretrained(
        work["model"], dtype=torch.float32, local_files_only=True
    )
    model.to(device).eval()
    stops, pad = work["stop_ids"], work["stop_ids"][0]
    limit = work["max_tokens"]
    settings = GenerationConfig(
        max_new_tokens=limit, do_sample=False, eos_token_id=stops, pad_token_id=pad
    )  # type: ignore[no-untyped-call]

    def answer(prompts: list[list[int]]) -> list[list[int]]:
        answers: dict[int, list[int]] = {}
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for at in range(0, len(order), size):
            chosen = order[at : at + size]
            width = max(len(prompts[i]) for i in chosen)
            tokens = torch.tensor(
                [[pad] * (width - len(prompts[i])) + prompts[i] for i in chosen], device=device
            )
            real = [
                [int(place >= width - len(prompts[i])) for place in range(width)] for i in chosen
            ]
            mask = torch.tensor(real, device=device)
            with torch.inference_mode():
                output = model.generate(tokens, attention_mask=mask, generation_config=settings)
            completions = zip(chosen, output[:, width:].tolist(), strict=True)
            answers |= {i: until_stop(row, stops) for i, row in completions}
        return [answers[i] for i in range(len(prompts))]

    return device, answer


def mlx_lm(work: Result, size: int) -> Any:
    """Return mlx-lm's device and answers, `size` rows at once.

    batch_generate replaces finished rows itself.
    """
    import_module("offapi.backends.mlx_backend")  # opens the BLAS that offapi's arm has
    import mlx.core as mx
    from mlx_lm import batch_generate, load

    model, tokenizer, *_ = load(work["model"])
    model.set_dtype(mx.float32)
    tokenizer.eos_token_ids = set(work["stop_ids"])

    def answer(prompts: list[list[int]]) -> list[list[int]]:
        limit = work["max_tokens"]
        output = batch_generate(
            model,
            tokenizer,
            prompts,
            max_tokens=limit,
            completion_batch_size=size,
            return_token_ids=True,
        )
        return output.token_ids or []

    return "gpu" if mx.default_device().type == mx.DeviceType.gpu else "cpu", answer


def until_stop(row: Sequence[int], stops: Sequence[int]) -> list[int]:
    """Return `row` before its first stop token."""
    return list(takewhile(lambda token: token not in stops, row))


def gate(results: dict[str, list[Result]]) -> int:
    """Return how many documents have the same tokens in every run; exit 3 unless all have."""
    ours = results["offapi"][0]["answers"]
    others = [(arm, run["answers"]) for arm, runs in results.items() for run in runs]
    for i in range(len(ours)):
        differing = sorted({arm for arm, answers in others if answers[i] != ours[i]})
        if differing:
            pairs.note(f"document {i}: {', '.join(differing)} and offapi gave different tokens")
    same = sum(all(answers[i] == ours[i] for _, answers in others) for i in range(len(ours)))
    pairs.note(f"{same} of {len(ours)} documents: the same tokens from all arms")
    if same < len(ours):
        pairs.note("error: the arms do not do the same work.")
        sys.exit(3)
    return same


if __name__ == "__main__":
    main()
