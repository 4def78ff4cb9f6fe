"""Does GRPO learn a real task? A student of 40 labelled invoices continues on documents alone.

The invoices are generated (the demo's, with test layouts that are not in the training set). The
student is trained by the sft recipe on 40 answers, then by grpo on other documents without answers:
only the checks of grpo_invoices_task.py reward it. Test answers before and after are compared
document by document; lr 0 is the control that must not learn. The control's rollouts, all from the
untrained student, are then learned offline: the same losses, as many completions, as many steps.

    python scripts/bench/grpo_invoices.py OUT --backend torch --seeds 3
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import orjson

from offapi.data import documents
from offapi.demo.generate import generate

TASK = Path(__file__).with_name("grpo_invoices_task.py").absolute()
LABELLED, VAL, TEST = 40, 40, 120


@click.command()
@click.argument("out_folder", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--backend", default="torch", show_default=True, help="Backend to train with.")
@click.option("--seeds", default=3, show_default=True, help="Number of GRPO runs.")
@click.option("--unlabelled", default=160, show_default=True, help="Documents without answers.")
@click.option("--epochs", default=1.0, show_default=True, help="Passes over the documents.")
@click.option("--lr", default="4e-4", show_default=True, help="Learning rate of GRPO.")
@click.option("--rule", default="dr_grpo", show_default=True, help="Rule of the policy loss.")
@click.option(
    "--control/--no-control",
    default=True,
    show_default=True,
    help="Also train the control (lr 0) and offline from its rollouts.",
)
@click.option("--set", "overrides", multiple=True, help="Key of the GRPO recipe, as key=value.")
def main(
    out_folder: Path,
    backend: str,
    seeds: int,
    unlabelled: int,
    epochs: float,
    lr: str,
    rule: str,
    control: bool,
    overrides: tuple[str, ...],
) -> None:
    """Prepare, train and compare; run it again to resume."""
    out = out_folder.absolute()
    out.mkdir(parents=True, exist_ok=True)
    write_documents(out, unlabelled)
    common = {"task": TASK, "val": out / "val.jsonl", "out": out, "model": "demo"}
    train(
        out / "sft.toml",
        backend,
        {"recipe": "sft", "name": f"sft-{backend}", "data": out / "labelled.jsonl", **common},
    )
    student = out / f"sft-{backend}" / "adapter"
    score(out, backend, student, f"before-{backend}")
    keys = {"recipe": "grpo", "data": out / "unlabelled.jsonl", "adapter": student, **common}
    keys |= {"epochs": epochs, "eval_every": 10, "warmup_steps": 4, "loss": {"rule": rule}}
    arms: list[tuple[str, dict[str, object]]]
    arms = [(f"grpo-{backend}-{seed}", {"seed": seed, "lr": float(lr)}) for seed in range(seeds)]
    if control:
        control_name = f"lr0-{backend}"
        recorded = {"rollouts": out / control_name / "rollouts", "seed": 0, "lr": float(lr)}
        arms += [(control_name, {"seed": 0, "lr": 0.0}), (f"offline-{backend}", recorded)]
    for name, more in arms:
        train(out / f"{name}.toml", backend, {**keys, **more, "name": name}, overrides)
        score(out, backend, out / name / "adapter", f"after-{name}")
        offapi(
            "eval",
            str(out / f"after-{name}.jsonl"),
            "--against",
            str(out / f"before-{backend}.jsonl"),
        )


def write_documents(out: Path, unlabelled: int) -> None:
    """Write the four files; the unlabelled documents have no gold."""
    train_rows = generate("train", LABELLED + unlabelled)
    documents.write(out / "labelled.jsonl", train_rows[:LABELLED])
    documents.write(
        out / "unlabelled.jsonl", [replace(row, gold=None) for row in train_rows[LABELLED:]]
    )
    documents.write(out / "val.jsonl", generate("val", VAL))
    documents.write(out / "test.jsonl", generate("test", TEST))


def train(
    recipe: Path, backend: str, keys: dict[str, object], overrides: Sequence[str] = ()
) -> None:
    """Run `offapi train`; resume an interrupted run, and skip a finished one."""
    run = recipe.parent / str(keys["name"])
    if (run / "learned.json").exists() or (run / "report.json").exists():
        return
    recipe.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in keys.items()))
    more = [word for override in overrides for word in ("--set", override)]
    resume = ["--resume"] if run.exists() else []
    offapi("train", str(recipe), "--backend", backend, *more, *resume)


def score(out: Path, backend: str, adapter: Path, name: str) -> None:
    """Answer the test documents greedily, once."""
    if not (out / f"{name}.jsonl").exists():
        words = (
            "--task",
            str(TASK),
            "--data",
            str(out / "test.jsonl"),
            "--adapter",
            str(adapter),
            "--backend",
            backend,
        )
        offapi("eval", *words, "--out", str(out / f"{name}.jsonl"))


def offapi(*words: str) -> None:
    """Run the installed command, and exit if it fails.

    A failed gate (exit code 3) is a result, not a failure.
    """
    click.echo(f"$ offapi {' '.join(words)}")
    done = subprocess.run([str(Path(sys.executable).with_name("offapi")), *words], check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.returncode)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return repr(value) if isinstance(value, float) else orjson.dumps(value, default=str).decode()


if __name__ == "__main__":
    main()
