"""A GRPO task with a tool, for the tiny random model: tokens of its own make it call, and end turns.

An episode calls often and badly, so that a run has turns, errors and malformed calls to learn from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpo_signal
import orjson
import recipe_folder

CALLS = (
    '<tool_call>{"name": "look", "arguments": {"shop": "Ash"}}</tool_call>',
    '<tool_call>{"name": "look", "arguments": {}}</tool_call>',
    "<tool_call>{</tool_call>",
)
FIRST, COPIES = 258, 14  # of each call; the tiny vocabulary has 300 tokens
TASK = """
import time
import offapi
from offapi.checks.verdict import Verdict


def look(shop: str) -> str:
    \"\"\"Look a shop up.

    Args:
        shop: Its name.
    \"\"\"
    time.sleep(SECONDS)
    return shop + " is known"


def used(document, answer, context):
    calls = sum(len(message.get("tool_calls") or ()) for message in context.messages)
    letters = sum(c in "abcdefghijklmnopqrstuvwxyz" for c in answer.text) / max(len(answer.text), 1)
    return Verdict(min(calls, 3) / 6 + letters / 2, "")


task = offapi.Task(
    name="letters",
    instructions="Name the shop.",
    schema={"type": "object", "properties": {"shop": {"type": "string"}}, "required": ["shop"]},
    checks={"used": (used, 1.0)},
    match={"shop": "text"},
    tools=(look,),
    max_turns=3,
    max_answer_tokens=14,
)
"""
KEYS: dict[str, Any] = {
    "batch_size": 2,
    "num_generations": 6,
    "epochs": 0.4,
    "max_tokens": 1000,
    "eval_every": 2,
    "checkpoint_every": 1,
    "workers": 1,
    "device": "cpu",
    "lr": 0.02,
    "temperature": 4.0,
    "allow": ["cut", "learned", "signal", "hacking"],
}


def lay_out(folder: Path, seconds: float = 0.0, **keys: Any) -> Path:
    """Write a GRPO recipe with a tool that takes `seconds`; return the recipe's path."""
    recipe = grpo_signal.recipe_folder.lay_out(folder, "grpo", count=10, **{**KEYS, **keys})
    (folder / "task.py").write_text(TASK.replace("SECONDS", str(seconds)))
    for name in ("train", "val"):
        rows = [orjson.loads(line) for line in (folder / f"{name}.jsonl").read_bytes().splitlines()]
        documents = [{key: row[key] for key in ("id", "document")} for row in rows]
        recipe_folder.write_jsonl(folder / f"{name}.jsonl", documents)
    teach_calls(folder / "model")
    return recipe


def teach_calls(model: Path) -> None:
    """Give the tokenizer tokens that are whole calls, and the model many that end its turn."""
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    pieces = [call + " " * copy for call in CALLS for copy in range(COPIES)]
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    assert tokenizer.token_to_id(pieces[0]) == FIRST
    tokenizer.save(str(model / "tokenizer.json"))
    ends = {"eos_token_id": [257, *range(128, 160)], "bos_token_id": 256}
    (model / "generation_config.json").write_bytes(orjson.dumps(ends))
