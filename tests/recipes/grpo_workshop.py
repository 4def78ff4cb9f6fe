"""A tiny student of two letters, warmed up to say them in either order, for GRPO to teach."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import recipe_folder
import tiny_llama

LETTERS = "abcdefghijklmnop"
PAIRS = tuple("".join(pair) for pair in itertools.permutations(LETTERS, 2))
HELD_OUT = PAIRS[::6]  # 40 of 240
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}<|turn|>{{ message['content']"
    " }}\n{% elif message['role'] == 'assistant' %}{{ message['content'] }}<|end|>{% else %}{{"
    " message['content'] }}{% endif %}{% endfor %}"
)
TASK = """
import random
import offapi
from offapi.checks import Verdict

seen = []


def backwards(document, answer, context):
    right = sum(a == b for a, b in zip(answer.text, reversed(document)))
    return Verdict(right / 2 if len(answer.text) == 2 else 0.0, "")


def exactly(document, answer, context):
    return Verdict(float(answer.text == document[::-1]), "")


def forwards(document, answer, context):
    return Verdict(float(answer.text == document), "")


def always(document, answer, context):
    return Verdict(1.0, "")


def never(document, answer, context):
    return Verdict(0.0, "")


def chance(document, answer, context):
    return Verdict(random.random(), "")


def raises(document, answer, context):
    raise ValueError(f"cannot judge {answer.text!r}")


def counts(document, answer, context):
    seen.append(answer)
    return Verdict(len(seen) % 997 / 997, "")


task = offapi.Task(
    name="pairs",
    instructions=".",
    schema={"type": "object", "properties": {"out": {"type": "string"}}},
    match={"out": "text"},
    checks={CHECKS},
    audit=AUDIT,
    max_answer_tokens=TOKENS,
)
"""


def write_model(folder: Path) -> Path:
    """Write the tiny model with a template of nothing but the document."""
    tiny_llama.write_chat(folder)
    path = folder / "tokenizer_config.json"
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "chat_template": TEMPLATE}))
    return folder


def task_text(checks: Sequence[str], audit: Sequence[str] = (), tokens: int = 4) -> str:
    table = ", ".join(f'"{name}": ({name}, 1.0)' for name in (*checks, *audit))
    return (
        TASK.replace("CHECKS", table)
        .replace("AUDIT", repr(tuple(audit)))
        .replace("TOKENS", str(tokens))
    )


def write_recipe(folder: Path, name: str, shape: int, **keys: Any) -> Path:
    text = "".join(f"{key} = {orjson.dumps(value).decode()}\n" for key, value in keys.items())
    path = folder / f"{name}.toml"
    path.write_text(f"{text}\n[lora]\nrank = {shape}\nalpha = {2.0 * shape}\n")
    return path


def warm_up(folder: Path) -> Path:
    """Train a student that answers a pair or its reverse equally often; return its adapter.

    `folder` then holds the model too. The adapter is moved away from its run, whose manifest would
    say that it has learned all pairs. It has, but in both orders, so that the held-out ones show no
    memory.
    """
    model = write_model(folder / "model")
    (folder / "task.py").write_text(task_text(["backwards"]))
    chats = [
        {
            "id": f"{pair}{said}",
            "messages": [
                {"role": "system", "content": "."},
                {"role": "user", "content": pair},
                {"role": "assistant", "content": said},
            ],
        }
        for pair in PAIRS
        for said in (pair, pair[::-1])
    ]
    recipe_folder.write_jsonl(folder / "chats.jsonl", chats)
    keys = {
        "task": "task.py",
        "data": "chats.jsonl",
        "learn": "chats",
        "model": str(model),
        "out": "runs",
    }
    sizes = {"lr": 5e-3, "epochs": 20.0, "batch_size": 32, "checkpoint_every": 1000}
    recipe = write_recipe(folder, "sft", 16, recipe="sft", **keys, **sizes)
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 0, done.stderr
    return shutil.copytree(
        folder / "runs" / "sft" / "adapter", folder / "kept" / "student" / "adapter"
    )


def lay_out(
    folder: Path,
    student: Path,
    checks: Sequence[str],
    audit: Sequence[str] = (),
    tokens: int = 4,
    **keys: Any,
) -> Path:
    """A GRPO run from `student` on pairs it is not held out on; the recipe file's path."""
    folder.mkdir(exist_ok=True)
    (folder / "task.py").write_text(task_text(checks, audit, tokens))
    rows = [{"id": pair, "document": pair} for pair in PAIRS]
    recipe_folder.write_jsonl(
        folder / "train.jsonl", [row for row in rows if row["id"] not in HELD_OUT]
    )
    recipe_folder.write_jsonl(folder / "val.jsonl", [row for row in rows if row["id"] in HELD_OUT])
    settings = {
        "recipe": "grpo",
        "task": "task.py",
        "data": "train.jsonl",
        "val": "val.jsonl",
        "out": "runs",
        "model": str(student.parents[2] / "model"),
        "adapter": str(student),
        "lr": 1e-3,
        "warmup_steps": 0,
        "batch_size": 16,
        "num_generations": 8,
        "num_iterations": 2,
        "eval_every": 10,
        "workers": 1,
        **keys,
    }
    return write_recipe(folder, "grpo", 16, **settings)
