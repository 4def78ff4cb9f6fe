"""The keys of a recipe's file: type, default and meaning of each.

A key's meaning is the remark next to it in recipes/configs/*.toml; `KEYS` has those that the files
leave out. `offapi explain recipe` and the recipes' pages print them. Left out: a comparison's keys.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from importlib import import_module, resources
from pathlib import Path
from types import NoneType
from typing import Any, Literal

RECIPES = ("sft", "distill", "filtered_sft", "grpo")
TOML_KEY = re.compile(r"^(?:# )?(\w+) = .*?(?:  # (.*))?$")
KEYS = {
    "adapter": "a trained student to start from; it is the reference as well",
    "allow": "gates that may fail without stopping the run, as `--allow` names them",
    "cap_field": "learn at most `cap_rows` documents for each value of this field",
    "cap_rows": "see `cap_field`",
    "checkpoint_every": "steps between two checkpoints",
    "checkpointing": "whether the backward pass computes layers again, which takes less memory and"
    " more time: auto (where memory would not hold a row otherwise), always or never",
    "device": "torch: auto, cpu, cuda, cuda:1; mlx: auto, cpu, gpu",
    "dtype": "float32 or bfloat16",
    "constrain": "what completions can be: off (anything), schema, source or register",
    "credit": "what an agent's turns are compared by: episode (its reward), or turn (each turn's"
    " reward to go)",
    "escalated": "whether answers of another model, to which a server escalated, are learned too",
    "full": "train every weight in place of an adapter; `lora` is not used",
    "gold": "audit (gold is compared, never rewarded) or reward (checks that compare it are"
    " rewarded too; every document then needs gold)",
    "labels": "a file that `offapi label` wrote, used instead of asking a teacher",
    "learn": "what of a row is learned: gold, recorded_label, or chats (whole)",
    "max_resamples": "how often prompts without a signal are replaced (DAPO's dynamic sampling)",
    "min_p": "sampling: drop tokens below this share of the likeliest; 0: off",
    "num_iterations": "updates from one batch of rollouts",
    "on_long": "what happens to rows longer than `max_tokens`: refuse or drop",
    "out": "the folder that holds the run's folder",
    "overlong": "how many of an answer's last tokens cost reward (DAPO's soft limit)",
    "quantize": "bits of the base model: 4 or 8, on MLX also 2, 3, 5 or 6; none: not quantized",
    "reward_seconds": "the longest time that one call of a check may take, in seconds",
    "rollouts": "graded traces, or a run's `rollouts` folder, to learn from instead of sampling",
    "seed": "random seed of every draw",
    "shard": "split the base model over the ranks that torchrun starts (FSDP2), so that each holds"
    " a part; for a model that one GPU cannot hold",
    "shots": "worked examples in the teacher's prompt; none: all of the task's",
    "template": "settings of the chat template, such as `{ enable_thinking = false }`; `date` is"
    " the day for one that asks the clock, by default the run's first; `history` is how an agent's"
    " earlier turns are learned: append (as generated) or split (as the template rewrites them)",
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
    "lora.alphas": "alphas of their own: the end of a layer's path, as an expression -> alpha",
    "lora.dora": "train the lengths of the weights' rows too (DoRA)",
    "lora.exclude": "layers that are not adapted, named as in `lora.targets`",
    "lora.layers": "the numbers of the model's layers that are adapted, from 0; none: all",
    "lora.rank": "rank of the adapter",
    "lora.ranks": "ranks of their own: the end of a layer's path, as an expression -> rank",
    "lora.rslora": "the adapter's scale is alpha / the root of the rank (rsLoRA)",
    "lora.targets": "ends of the names of the linear layers that are adapted; all-linear: all, as"
    " is the default where a model names them otherwise",
    "loss.beta": "weight of the KL to the reference; at 0 it is only measured",
    "loss.epsilon": "how far below 1 a ratio may go; none: the rule's own value",
    "loss.epsilon_high": "how far above 1 a ratio may go; none: the rule's own value",
    "loss.kl": "the estimator of the KL: ratio_k3 or k2",
    "loss.rule": "dr_grpo, grpo, dapo, gspo, cispo, rloo or maxrl",
    "loss.tis_cap": "truncated importance sampling: the largest weight of a token; 0: off",
    "optimizer.beta1": "AdamW: decay of the first moment",
    "optimizer.beta2": "AdamW: decay of the second moment",
    "optimizer.bits": "AdamW: bits of a moment between steps; 8 takes a quarter of the memory",
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
_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}


@dataclass(frozen=True)
class RecipeKey:
    """A key, with its table before it, and what it means."""

    name: str
    type: str
    default: str
    meaning: str


def recipe_keys(recipe: str) -> list[RecipeKey]:
    """Return every key of a recipe, in the order of its config."""
    described = _remarks(recipe)
    found = []
    for name, kind, field in _keys_of(import_module(f"offapi.recipes.{recipe}").Config):
        if name not in FROM_ELSEWHERE:
            meaning = described.get(name) or KEYS[name]
            found.append(RecipeKey(name, _type_name(kind), _default(field), meaning))
    return found


def _remarks(recipe: str) -> dict[str, str]:
    """Return each key's remark in recipes/configs/RECIPE.toml, with `table.key` in tables."""
    path = resources.files("offapi.recipes") / "configs" / f"{recipe}.toml"
    described: dict[str, str] = {}
    table = ""
    for line in path.read_text("utf-8").splitlines():
        if header := re.match(r"^\[(\w+)\]", line):
            table = f"{header[1]}."
        elif (key := TOML_KEY.match(line)) and key[2]:
            described[table + key[1]] = key[2]
    return described


def _keys_of(config: type[Any], prefix: str = "") -> Iterator[tuple[str, Any, Field[Any]]]:
    """Yield every key of a recipe's config with its type, with `table.key` in tables."""
    hints = typing.get_type_hints(config)
    for field in fields(config):
        if is_dataclass(hints[field.name]):
            yield from _keys_of(hints[field.name], f"{field.name}.")
        else:
            yield prefix + field.name, hints[field.name], field


def _type_name(kind: Any) -> str:
    """Return a type as a person writes its values."""
    if kind in _TYPES:
        return _TYPES[kind]
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return " | ".join(map(str, parts))
    if typing.get_origin(kind) is Mapping:
        return "table" if parts[1] is Any else f"table of {_type_name(parts[1])}s"
    if typing.get_origin(kind) in (tuple, frozenset, list):
        return f"list of {_type_name(parts[0])}s".replace("ss", "s")
    return " or ".join(_type_name(part) for part in parts if part not in (NoneType, ...)) or "text"


def _default(field: Field[Any]) -> str:
    """Return a key's default as a recipe would write it."""
    if field.default is MISSING:
        return "must be given" if field.default_factory is MISSING else "none"
    value = field.default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
