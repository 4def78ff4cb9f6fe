"""Write the parts of docs/ that follow from the code: `cli.md`, and each recipe's table of keys.

A key is described by the comment next to it in recipes/configs/*.toml; `KEYS` describes those that
the files leave out. Left out: the site, which `scripts/docs` builds.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from offapi.cli import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
RECIPES = ("sft", "distill", "filtered_sft", "grpo")
WIDTH = 92  # of a help text, in characters
START, END = "<!-- keys: made by scripts/docs -->", "<!-- end of keys -->"
TOML_KEY = re.compile(r"^(?:# )?(\w+) = .*?(?:  # (.*))?$")
KEYS = {
    "adapter": "a trained student to start from; it is the reference as well",
    "allow": "gates that may fail without stopping the run, as `--allow` names them",
    "cap_field": "learn at most `cap_rows` documents for each value of this field",
    "cap_rows": "see `cap_field`",
    "checkpoint_every": "steps between two checkpoints",
    "device": "torch: auto, cpu, cuda, cuda:1; mlx: auto, cpu, gpu",
    "dtype": "float32 or bfloat16",
    "labels": "a file that `offapi label` wrote, used instead of asking a teacher",
    "learn": "what of a row is learned: gold, recorded_label, or chats (whole)",
    "max_resamples": "how often prompts without a signal are replaced (DAPO's dynamic sampling)",
    "min_p": "sampling: drop tokens below this share of the likeliest; 0: off",
    "num_iterations": "updates from one batch of rollouts",
    "on_long": "what happens to rows longer than `max_tokens`: refuse or drop",
    "out": "the folder that holds the run's folder",
    "overlong": "how many of an answer's last tokens cost reward (DAPO's soft limit)",
    "quantize": "bits of the base model, MLX only; none: not quantized",
    "reward_seconds": "the longest time that one call of a check may take, in seconds",
    "rollouts": "graded traces, or a run's `rollouts` folder, to learn from instead of sampling",
    "seed": "random seed of every draw",
    "shots": "worked examples in the teacher's prompt; none: all of the task's",
    "thinking": "whether an answer's thinking is learned: keep or drop",
    "top_k": "sampling: keep only this many of the likeliest tokens; 0: off",
    "top_p": "sampling: keep only the likeliest tokens with this share of the probability; 1: off",
    "workers": "processes that compute rewards",
    "keep.best": "keep at most this many rows of each trace group, the best",
    "keep.cap": "keep at most this many rows for each value of `cap_by`",
    "keep.cap_by": "`group`, or a field of the answer",
    "keep.near_duplicates": "keep only one of documents that are nearly the same",
    "keep.threshold": "the lowest grade a row may have; with no rule at all, 1",
    "keep.top": "keep this share of all graded rows, the best",
    "limits.logit_rows": "rows of the vocabulary-wide head computed at a time",
    "limits.rollout_rows": "completions decoded side by side",
    "limits.train_tokens": "tokens of one micro-batch; none: what suits the device",
    "lora.alpha": "the adapter's scale is alpha / rank",
    "lora.rank": "rank of the adapter",
    "lora.targets": "the linear layers that are adapted",
    "loss.beta": "weight of the KL to the reference; at 0 it is only measured",
    "loss.epsilon": "how far below 1 a ratio may go; none: the rule's own value",
    "loss.epsilon_high": "how far above 1 a ratio may go; none: the rule's own value",
    "loss.kl": "the estimator of the KL: ratio_k3 or k2",
    "loss.rule": "dr_grpo, grpo, dapo, gspo, cispo, rloo or maxrl",
    "loss.tis_cap": "truncated importance sampling: the largest weight of a token; 0: off",
    "optimizer.beta1": "AdamW: decay of the first moment",
    "optimizer.beta2": "AdamW: decay of the second moment",
    "optimizer.eps": "AdamW: added to the root of the second moment",
    "optimizer.max_grad_norm": "gradients are clipped to this norm; 0: off",
    "optimizer.weight_decay": "AdamW: decoupled weight decay",
    "data": "the documents to train on",
    "epochs": "passes over the rows",
    "lr": "learning rate; 0 changes nothing and serves as a control",
    "max_tokens": "the most tokens of a row, prompt and answer together",
    "model": "the student: a model in the store, or its folder",
    "name": "the run's folder inside `out`",
    "recipe": "the name of the recipe",
    "task": "the task file",
    "temperature": "sampling temperature, at least 0.05",
    "val": "documents with `gold` to evaluate on",
}
FROM_ELSEWHERE = {"loss.temperature", "loss.max_tokens"}  # follow from the sampling


def commands() -> Iterator[tuple[str, ...]]:
    """Yield every command and subcommand, as the words that call it."""
    yield ()
    for name in COMMANDS:
        yield (name,)
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group):
            yield from ((name, inner) for inner in command.list_commands(click.Context(command)))


def cli_page() -> str:
    """Return docs/cli.md: the help text of every command."""
    parts = [
        "# Commands\n",
        "Made by `scripts/docs` from each command's `--help`. People read stderr; with `--json`"
        " programs read\none object on stdout. Exit codes: 0 done, 1 error, 2 usage or"
        " configuration, 3 ran but a gate failed,\n130 interrupted.\n",
    ]
    for words in commands():
        done = CliRunner().invoke(
            cli, [*words, "--help"], prog_name="offapi", terminal_width=WIDTH, env={"COLUMNS": "0"}
        )
        title = " ".join(("offapi", *words))
        parts.append(f"## {title}\n\n```text\n{done.output.rstrip()}\n```\n")
    return "\n".join(parts)


def comments(recipe: str) -> dict[str, str]:
    """Return each key's comment in recipes/configs/RECIPE.toml, with `table.key` in tables."""
    descriptions: dict[str, str] = {}
    table = ""
    for line in (ROOT / "recipes" / "configs" / f"{recipe}.toml").read_text("utf-8").splitlines():
        if header := re.match(r"^\[(\w+)\]", line):
            table = f"{header[1]}."
        elif (key := TOML_KEY.match(line)) and key[2]:
            descriptions[table + key[1]] = key[2]
    return descriptions


def keys_of(config: type[Any], prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Yield every key of a recipe's config, with `table.key` in tables."""
    hints = typing.get_type_hints(config)
    for field in fields(config):
        if is_dataclass(hints[field.name]):
            yield from keys_of(hints[field.name], f"{field.name}.")
        else:
            yield prefix + field.name, field


def keys(recipe: str) -> list[tuple[str, str, str]]:
    """Return (key, default, description) for every key of a recipe."""
    descriptions = comments(recipe)
    rows = []
    for name, field in keys_of(import_module(f"offapi.recipes.{recipe}").Config):
        if name in FROM_ELSEWHERE:
            continue
        text = descriptions.get(name) or KEYS[name]
        rows.append((name, default_of(field), text.replace("|", "\\|")))
    return rows


def default_of(field: Field[Any]) -> str:
    """Return a key's default as a recipe would write it."""
    if field.default is MISSING:
        return "must be given"
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value) or "none"
    return f"`{value}`"


def with_keys(page: str, recipe: str) -> str:
    """Return the recipe's page with its table of keys regenerated."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {default} | {text} |" for name, default, text in keys(recipe)]
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    table = "\n".join(lines)
    return f"{before}{START}\n\n{table}\n\n{END}{after}"


def pages() -> dict[Path, str]:
    """Return every page that is generated, wholly or in part, with its content."""
    generated = {DOCS / "cli.md": cli_page()}
    for recipe in RECIPES:
        path = DOCS / "recipes" / f"{recipe}.md"
        generated[path] = with_keys(path.read_text("utf-8"), recipe)
    return generated


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content, "utf-8")
