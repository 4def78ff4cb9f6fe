"""Time a whole GRPO step, and its parts: offapi against TRL's GRPOTrainer or mlx-lm-lora's trainer.

All arms have the same weights, prompts, group, completion lengths (no token ends one), LoRA (r 16,
alpha 32, all linears), AdamW, fp32, threads, BLAS, temperature 1, beta 0, one update per step and
the same reward, a cheap function of the text. offapi's step is its recipe's, which also scores with
the reference, for the KL; the peers skip that at beta 0. Its rewards run in a separate process,
whose memory is not counted. Left out: ragged lengths, several updates per step.

There are three phases: step; rollout, which is sampling alone; and train, the update from given
completions alone. hf-generate and peft-loop process each prompt once per completion. trl is TRL
without gradient checkpointing, which it has by default (trl-default). mlx-lm-lora decodes one
completion at a time, its default, or the whole group (-group); mlx-rollout is its sampling alone.

Install the peers yourself, next to offapi and without changing its packages:

    \b
    pip install -c constraints.txt trl==1.16.0
    pip install -c constraints.txt --no-deps mlx-lm-lora==5.10.2
    python scripts/bench/grpo.py --threads 2
    python scripts/bench/grpo.py --peer hf-generate --peer peft-loop --prompt-tokens 64 --json
    python scripts/bench/grpo.py --backend mlx
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import click
import grpo_common
import grpo_gates
import grpo_peers
import orjson
import pairs
from grpo_peers import PEERS
from pairs import Clock, Result, finish

UNIT = "tokens_per_second"


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
    "chosen",
    multiple=True,
    type=click.Choice(list(PEERS)),
    help="Peer to compare with; may be repeated.  [default: all of the backend]",
)
@click.option(
    "--model", default="demo", show_default=True, help="Model in the store, or its folder."
)
@click.option("--prompt-tokens", default=512, show_default=True, help="Tokens per prompt.")
@click.option("--completion-tokens", default=64, show_default=True, help="Tokens per completion.")
@click.option("--group", default=8, show_default=True, help="Completions per prompt.")
@click.option("--prompts", default=1, show_default=True, help="Prompts per step.")
@click.option("--steps", default=1, show_default=True, help="Timed steps.")
@click.option("--warmup", default=1, show_default=True, help="Untimed steps before the timed ones.")
@click.option("--repeats", default=5, show_default=True, help="Runs of every arm.")
@click.option("--threads", default=2, show_default=True, help="CPU threads of every arm.")
@click.option("--device", default="auto", show_default=True, help="Device to compute on.")
@click.option("--json", "as_json", is_flag=True, help="Print one object on stdout.")
@click.option("--child", nargs=2, hidden=True)
def main(
    backend: str,
    chosen: tuple[str, ...],
    model: str,
    prompt_tokens: int,
    completion_tokens: int,
    group: int,
    prompts: int,
    steps: int,
    warmup: int,
    repeats: int,
    threads: int,
    device: str,
    as_json: bool,
    child: tuple[str, str] | None,
) -> None:
    if child is not None:
        return run(child[0], Path(child[1]))
    sizes = {
        "prompt": prompt_tokens,
        "completion": completion_tokens,
        "group": group,
        "prompts": prompts,
    }
    sizes |= {"steps": steps, "warmup": warmup}
    work = pairs.or_exit(prepare, model, sizes) | {"backend": backend, "device": device}
    peers = [
        name
        for name, peer in PEERS.items()
        if (name in chosen if chosen else peer.backend == backend)
    ]
    if any(PEERS[name].backend != backend for name in peers):
        raise click.UsageError(f"--peer must name a peer of --backend {backend}")
    gates = grpo_gates.check(
        pairs.interleave(__file__, ["gates"], 1, work, threads)["gates"][0]["gates"]
    )
    phases = dict.fromkeys(PEERS[name].phase for name in peers)
    arms = [
        arm
        for phase in phases
        for arm in (f"offapi-{phase}", *(n for n in peers if PEERS[n].phase == phase))
    ]
    results = pairs.interleave(__file__, arms, repeats, work, threads)
    flops = {
        arm: work["flops"][PEERS[arm].phase if arm in PEERS else arm.removeprefix("offapi-")]
        for arm in arms
    }
    report = pairs.summary(results, threads, flops) | {
        "ratios": {
            name: pairs.ratios(results[f"offapi-{PEERS[name].phase}"], results[name], UNIT)
            for name in peers
        },
        "goals": {name: PEERS[name].goals for name in peers},
        "phases": {arm: seconds(runs) for arm, runs in results.items() if "phases" in runs[0]},
        "gates": gates,
        "sizes": sizes,
    }
    report["versions"] |= grpo_peers.version()
    print(orjson.dumps(report).decode() if as_json else table(report))


def prepare(name: str, sizes: Result) -> Result:
    """Return the model, every step's prompts, the last step's completions, and the arithmetic."""
    import numpy as np
    import rows

    from offapi.chat.chat import Chat
    from offapi.demo import generate as generator
    from offapi.models.store import get

    model, group = get(name), sizes["group"]
    chat, count = Chat.load(model.path), (sizes["warmup"] + sizes["steps"]) * sizes["prompts"]
    needed = count * sizes["prompt"] + sizes["prompts"] * group * sizes["completion"]
    tokens: tuple[int, ...] = ()
    documents = 64
    while len(tokens) < needed:
        text = "\n--\n".join(row.text for row in generator.generate("train", documents))
        tokens, documents = chat.encode(text), 2 * documents
    given = tokens[count * sizes["prompt"] :]
    completions = [
        given[i * sizes["completion"] :][: sizes["completion"]]
        for i in range(sizes["prompts"] * group)
    ]
    rewards = np.sqrt(1.0 + np.arange(group))
    advantages = (rewards - rewards.mean()) / rewards.std(ddof=1)
    return sizes | {
        "model": str(model.path),
        "tokens": [tokens[i * sizes["prompt"] :][: sizes["prompt"]] for i in range(count)],
        "completions": [completions[i * group :][:group] for i in range(sizes["prompts"])],
        "advantages": advantages.tolist(),
        "flops": flops(*rows.weights(model.path), sizes),
    }


def flops(shapes: list[tuple[int, int]], head: int, sizes: Result) -> dict[str, float]:
    """Return what each phase needs at least: linears and head, forward and back.

    Each prompt counts once. Attention is left out.
    """
    linears, lora = (
        sum(m * n for m, n in shapes),
        sum(grpo_common.RANK * (m + n) for m, n in shapes),
    )
    done = sizes["group"] * sizes["completion"]
    rollout = 2.0 * linears * (sizes["prompt"] + done) + 2.0 * head * done
    train = (4.0 * linears + 6.0 * lora) * (sizes["prompt"] + done) + 4.0 * head * done
    steps = sizes["steps"] * sizes["prompts"]
    return {"rollout": steps * rollout, "train": steps * train, "step": steps * (rollout + train)}


def run(arm: str, folder: Path) -> None:
    """Run one arm, in the child process."""
    work = orjson.loads((folder / "work.json").read_bytes())
    if arm in PEERS:
        PEERS[arm].run(arm, work, folder)
    else:
        {
            "gates": grpo_gates.run,
            "offapi-step": step,
            "offapi-rollout": rollout,
            "offapi-train": train,
        }[arm](work, folder)


def step(work: Result, folder: Path) -> None:
    """Run the steps of recipes/grpo.py: sample, reward, score, measure and update."""
    from offapi.chat.chat import Chat
    from offapi.data.documents import Document
    from offapi.optimizer import AdamW
    from offapi.rl import metrics
    from offapi.rl.reward_pool import Asked, Rewards
    from offapi.rl.rollouts import Prompt, Sampler, experiences, sample
    from offapi.rl.timings import Clock as Phases

    (folder / "task.py").write_text(grpo_common.TASK)
    backend, loss, n = grpo_gates.load(work), grpo_gates.loss(work), work["prompts"]
    prompts = [
        Prompt(Document(str(i), ""), tuple(tokens)) for i, tokens in enumerate(work["tokens"])
    ]
    clock, phases, tokens = Clock(backend.device), Phases(), 0
    with Rewards(folder / "task.py", 1, 60.0, folder / "failed.json") as rewards:
        rewards.submit([Asked("", "", "")]).result()  # its process has started
        sampler = Sampler(
            backend,
            Chat.load(Path(work["model"])),
            rewards,
            work["group"],
            grpo_gates.sampling(work, 1),
        )
        for at in range(work["warmup"] + work["steps"]):
            if at == work["warmup"]:
                phases.take()
                tokens = 0
                clock.start()
            with phases.phase("rollout"):
                sampled = sample(sampler, prompts[at * n : (at + 1) * n], prompts, at, 0)
            with phases.phase("reference"):
                batch = experiences(backend, sampled.groups, loss)
                metrics.of_rollouts(sampled) | metrics.of_policy(batch)
            with phases.phase("train"):
                metrics.of_update(batch, backend.policy_gradient(batch, loss), 0)
                backend.optim_step(grpo_common.LR, AdamW())
            for group in sampled.groups:
                tokens += sum(len(rollout.completion.tokens) for rollout in group.rollouts)
        clock.stop()
    spent = {name.removeprefix("seconds/"): seconds for name, seconds in phases.take().items()}
    finish(folder, clock, tokens, phases=spent)


def rollout(work: Result, folder: Path) -> None:
    """Time sampling alone, with the adapter on the model as in training."""
    backend = grpo_gates.load(work)

    def sample(prompts: list[list[int]]) -> int:
        groups = backend.rollout(prompts, work["group"], grpo_gates.sampling(work, 1))
        return sum(len(completion.tokens) for group in groups for completion in group.completions)

    grpo_common.timed(work, folder, Clock(backend.device), sample)


def train(work: Result, folder: Path) -> None:
    """Time the update from given completions alone."""
    from offapi.optimizer import AdamW

    backend, batch, loss = grpo_gates.load(work), grpo_gates.given(work), grpo_gates.loss(work)

    def update(_: list[list[int]]) -> int:
        computed = backend.policy_gradient(batch, loss).metrics["tokens"]
        backend.optim_step(grpo_common.LR, AdamW())
        return int(computed)

    grpo_common.timed(work, folder, Clock(backend.device), update)


def seconds(results: list[Result]) -> dict[str, float]:
    """Return the median seconds of each phase."""
    names = results[0]["phases"]
    return {name: median(result["phases"][name] for result in results) for name in names}


def table(report: Result) -> str:
    """Format `report` for a person."""
    sizes, gates = report["sizes"], report["gates"]
    asked = (
        f"{sizes['prompts']} prompts of {sizes['prompt']} tokens a step, {sizes['group']}"
        " completions of "
    )
    lines = [f"{asked}{sizes['completion']}; {sizes['steps']} steps after {sizes['warmup']}", ""]
    lines.append(pairs.table(report | {"ratios": {}}))
    lines += ["", "seconds of a whole step's phases (rollout with reward)"]
    for arm, phases in report["phases"].items():
        lines.append(
            f"  {arm:20} " + ", ".join(f"{name} {value:.2f}" for name, value in phases.items())
        )
    for peer, ratios in report["ratios"].items():
        lines += ["", f"offapi-{PEERS[peer].phase} : {peer}"]
        for name, spread in ratios.items():
            goal = report["goals"][peer].get(name)
            target = ""
            if goal is not None:
                target = f", goal {goal} {'reached' if reached(name, goal, spread) else 'MISSED'}"
            lines.append(
                f"  {name:26} {spread['median']:.2f} ({spread['low']:.2f} to"
                f" {spread['high']:.2f}){target}"
            )
    lines += ["", "gates: " + ", ".join(f"{name} {value:.2g}" for name, value in gates.items())]
    return "\n".join(lines)


def reached(name: str, goal: float, spread: Result) -> bool:
    """Whether speed is at least, or memory at most, its goal."""
    return bool(spread["median"] <= goal if name == "peak_memory" else spread["median"] >= goal)


if __name__ == "__main__":
    main()
