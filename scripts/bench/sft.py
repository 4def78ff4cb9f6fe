"""Measure supervised fine-tuning, speed and memory: offapi against TRL's SFTTrainer or mlx-lm's.

All arms have the same rows, tokens, LoRA (r 16, alpha 32, all linears), AdamW, dtype, threads and
rows per step; the loss is on the answers alone. Only real tokens count, not padding. The first
batch's losses must agree to 1e-3, or nothing is reported. Left out: several devices.

Install the peer yourself: `pip install trl` for torch; mlx-lm comes with the extra `mlx`.

    \b
    python scripts/bench/sft.py --threads 2
    python scripts/bench/sft.py --data receipts.jsonl --peer trl --peer trl-accumulate --json
    python scripts/bench/sft.py --backend mlx
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import click
import orjson
import pairs
import sft_peers
from pairs import Clock, Result, finish

GATE = 1e-3  # nats
GOALS = {"tokens_per_second": 1.3, "peak_memory": 0.7}


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option(
    "--backend",
    type=click.Choice(["torch", "mlx"]),
    default="torch",
    show_default=True,
    help="Backend to measure.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    help="Peer to compare with; may be repeated: trl, trl-padding-free, trl-accumulate; mlx-lm."
    "  [default: trl or mlx-lm]",
)
@click.option(
    "--model", default="demo", show_default=True, help="Model in the store, or its folder."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Documents with gold (JSONL).  [default: generated receipts]",
)
@click.option(
    "--task", "task_file", type=click.Path(path_type=Path), help="Task file.  [default: the demo's]"
)
@click.option("--batch", default=4, show_default=True, help="Rows per step.")
@click.option("--steps", default=4, show_default=True, help="Timed steps.")
@click.option("--warmup", default=1, show_default=True, help="Untimed steps before the timed ones.")
@click.option("--repeats", default=5, show_default=True, help="Pairs of runs.")
@click.option("--threads", default=2, show_default=True, help="CPU threads of every arm.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Number format of the model.",
)
@click.option("--device", default="auto", show_default=True, help="Device to compute on.")
@click.option(
    "--train-tokens", default=4096, show_default=True, help="Tokens of offapi's micro-batch."
)
@click.option("--json", "as_json", is_flag=True, help="Print one object on stdout.")
@click.option("--child", nargs=2, hidden=True)
def main(
    backend: str,
    peers: tuple[str, ...],
    model: str,
    data: Path | None,
    task_file: Path | None,
    batch: int,
    steps: int,
    warmup: int,
    repeats: int,
    threads: int,
    dtype: str,
    device: str,
    train_tokens: int,
    as_json: bool,
    child: tuple[str, str] | None,
) -> None:
    if child is not None:
        return run(child[0], Path(child[1]))
    peers = peers or (("trl",) if backend == "torch" else ("mlx-lm",))
    work = pairs.or_exit(prepare, model, data, task_file, batch * (warmup + steps)) | {
        "backend": backend,
        "batch": batch,
        "warmup": warmup,
        "dtype": dtype,
        "device": device,
        "train_tokens": train_tokens,
    }
    results = pairs.interleave(__file__, ("offapi", *peers), repeats, work, threads)
    gate(results)
    flops = {arm: runs[0]["tokens"] * work["flops"] for arm, runs in results.items()}
    report = pairs.summary(results, threads, flops) | {
        "ratios": {
            peer: pairs.ratios(results["offapi"], results[peer], "tokens_per_second")
            for peer in peers
        },
        "goals": GOALS,
        "rows": len(work["rows"]),
        "batch": batch,
        "dtype": dtype,
    }
    print(orjson.dumps(report).decode() if as_json else pairs.table(report))


def prepare(name: str, data: Path | None, task_file: Path | None, count: int) -> Result:
    """Return the model and the rows as tokens, the first `given` of which are the prompt."""
    import rows

    from offapi.chat.chat import Chat
    from offapi.models.store import get

    model, task = get(name), rows.task(task_file)
    chat = Chat.load(model.path)
    tokenized = []
    for row in rows.read(data, count, chat):
        answer = {"role": "assistant", "content": task.answer_text(row.gold or {})}
        episode = chat.episode(row.id, [*task.messages(row.text), answer])
        # Up to the token that ends the answer: what a template adds after it is not learned.
        end = len(episode.mask) - episode.mask[::-1].index(True)
        tokenized.append(
            {"id": row.id, "tokens": episode.tokens[:end], "given": episode.mask.index(True)}
        )
    # N frozen weights and N' of LoRA take 4 N + 6 N' per token, without head and attention.
    flops = sum(4 * m * n + 6 * sft_peers.RANK * (m + n) for m, n in rows.weights(model.path)[0])
    return {"model": str(model.path), "rows": tokenized, "flops": flops}


def run(arm: str, folder: Path) -> None:
    """Run one arm, in the child process."""
    work = orjson.loads((folder / "work.json").read_bytes())
    if arm == "offapi":
        ours(work, folder)
    elif arm == "mlx-lm":
        sft_peers.mlx_lm(work, folder)
    else:
        sft_peers.trl(arm, work, folder)


def ours(work: Result, folder: Path) -> None:
    """Run the steps of recipes/training.py."""
    from offapi.backend import load
    from offapi.episodes import Episode, Segment
    from offapi.model_spec import Limits, LoraSpec, ModelSpec
    from offapi.optimizer import AdamW

    def episode(row: Result) -> Episode:
        tokens, given = tuple(row["tokens"]), row["given"]
        return Episode(row["id"], (Segment(tokens[:given], False), Segment(tokens[given:], True)))

    rows, size, warmup = [episode(row) for row in work["rows"]], work["batch"], work["warmup"]
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    spec = ModelSpec(
        path=Path(work["model"]),
        lora=LoraSpec(sft_peers.RANK, sft_peers.ALPHA),
        dtype=work["dtype"],
        device=work["device"],
        limits=Limits(train_tokens=work["train_tokens"]),
    )
    backend = load(work["backend"], spec)
    clock, losses = Clock(backend.device), []
    for step, batch in enumerate(batches):
        if step == warmup:
            clock.start()
        losses.append(backend.forward_backward(batch)["loss"])
        backend.optim_step(sft_peers.LR, AdamW())
    clock.stop()
    tokens = sum(len(row.tokens) for batch in batches[warmup:] for row in batch)
    finish(folder, clock, tokens, losses=losses)


def gate(results: dict[str, list[Result]]) -> None:
    """Exit 3 unless every arm begins with the same loss, which is the base's because B is zero."""
    first = {arm: runs[0]["losses"][0] for arm, runs in results.items()}
    pairs.note(
        "loss on the first batch: " + ", ".join(f"{arm} {loss:.5f}" for arm, loss in first.items())
    )
    ours = first["offapi"]
    if not all(math.isclose(loss, ours, rel_tol=0, abs_tol=GATE) for loss in first.values()):
        pairs.note(
            f"error: the losses differ by more than {GATE}: the arms do not do the same work."
        )
        sys.exit(3)


if __name__ == "__main__":
    main()
