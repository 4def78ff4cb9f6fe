"""Greedy labelling of documents, worked examples in the
prompt: offapi against HF generate, or mlx-lm's batch_generate.

All arms get the same prompts and must give the same tokens. The peer is run at several batch sizes,
its rows sorted by length, and its best size counts. Only tokens before the one that ends an answer
count. Left out: sampling.

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
@click.option("--backend", type=click.Choice(["torch", "mlx"]), default="torch", show_default=True)
@click.option(
    "--peer-batch",
    "sizes",
    multiple=True,
    type=int,
    help="Rows the peer decodes at once.  [16, 32, 64]",
)
@click.option("--model", default="demo", show_default=True, help="Name in the store, or a folder.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="JSONL of documents with gold.  [the demo's]"
)
@click.option(
    "--task", "task_file", type=click.Path(path_type=Path), help="Task file.  [the demo's]"
)
@click.option("--shots", default=4, show_default=True, help="Worked examples in the prompt.")
@click.option("--count", default=64, show_default=True, help="Documents.")
@click.option("--repeats", default=5, show_default=True, help="Pairs of runs.")
@click.option("--threads", default=2, show_default=True)
@click.option("--device", default="auto", show_default=True)
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
    """The model, the prompts as tokens, and the arithmetic
    of prefilling them with their common prefix once.
    """
    import rows

    from offapi.chat.chat import Chat
    from offapi.demo import generate as generator
    from offapi.episodes import common_prefix_length
    from offapi.models.store import get

    found, task = get(name), rows.task(task_file)
    chat = Chat.load(found.path)
    read = generator.generate("test", count) if data is None else rows.read(data, count, chat)
    prompts = [chat.prompt(task.messages(row.text, shots)) for row in read]
    shared = common_prefix_length(prompts)
    shapes, head = rows.weights(found.path)
    linears = sum(height * width for height, width in shapes)
    return {
        "model": str(found.path),
        "prompts": prompts,
        "stop_ids": chat.stop_ids,
        "max_tokens": task.max_answer_tokens,
        "flops": 2.0 * linears * (shared + sum(len(prompt) - shared for prompt in prompts)),
        "flops_per_token": 2.0 * (linears + head),
    }


def run(arm: str, folder: Path) -> None:
    """In the child: one arm, warmed up on two documents."""
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
    """offapi's backend as `offapi label` and `offapi eval` use it."""
    from offapi.backend import ModelSpec, Sampling, load

    backend = load(work["backend"], ModelSpec(path=Path(work["model"]), device=work["device"]))
    sampling = Sampling(max_tokens=work["max_tokens"], stop_ids=tuple(work["stop_ids"]))

    def answer(prompts: list[list[int]]) -> list[list[int]]:
        groups = {
            group.prompt: group.completions[0] for group in backend.rollout(prompts, 1, sampling)
        }
        return [until_stop(groups[i].tokens, work["stop_ids"]) for i in range(len(prompts))]

    return backend.device, answer


def hf_generate(work: Result, size: int) -> Any:
    """transformers' generate on left-padded batches of `size`, sorted by length."""
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
                made = model.generate(tokens, attention_mask=mask, generation_config=settings)[
                    :, width:
                ].tolist()
            answers |= {i: until_stop(row, stops) for i, row in zip(chosen, made, strict=True)}
        return [answers[i] for i in range(len(prompts))]

    return device, answer


def mlx_lm(work: Result, size: int) -> Any:
    """mlx-lm's batch_generate with `size` rows
    decoded at once; it replaces finished rows itself.
    """
    import_module("offapi.backends.mlx_backend")  # opens the BLAS that offapi's arm has
    import mlx.core as mx
    from mlx_lm import batch_generate, load

    model, tokenizer, *_ = load(work["model"])
    model.set_dtype(mx.float32)
    tokenizer.eos_token_ids = set(work["stop_ids"])

    def answer(prompts: list[list[int]]) -> list[list[int]]:
        limit = work["max_tokens"]
        made = batch_generate(
            model,
            tokenizer,
            prompts,
            max_tokens=limit,
            completion_batch_size=size,
            return_token_ids=True,
        )
        return made.token_ids or []

    return "gpu" if mx.default_device().type == mx.DeviceType.gpu else "cpu", answer


def until_stop(row: Sequence[int], stops: Sequence[int]) -> list[int]:
    """`row` before its first stop token."""
    return list(takewhile(lambda token: token not in stops, row))


def gate(results: dict[str, list[Result]]) -> int:
    """How many documents all arms answered with the same tokens in every run; exit 3 if not all."""
    wanted = results["offapi"][0]["answers"]
    others = [(arm, result["answers"]) for arm, found in results.items() for result in found]
    for i in range(len(wanted)):
        differing = sorted({arm for arm, answers in others if answers[i] != wanted[i]})
        if differing:
            pairs.note(f"document {i}: {', '.join(differing)} answered otherwise than offapi")
    same = sum(all(answers[i] == wanted[i] for _, answers in others) for i in range(len(wanted)))
    pairs.note(f"{same} of {len(wanted)} documents: the same tokens from all arms")
    if same < len(wanted):
        pairs.note("error: the arms do not do the same work.")
        sys.exit(3)
    return same


if __name__ == "__main__":
    main()
