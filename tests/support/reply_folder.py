"""A task that answers with text, replies to customers' e-mails, with a model that knows some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bigram_llama
import recipe_folder

TASK = """
import offapi
from offapi.checks import length, must_contain, must_not_contain, own, similar_to_gold


def names_customer(document, text):
    name = document.split(",")[0]
    return name in text, f"does not name {name}"


task = offapi.Task(
    name="replies",
    instructions="Reply to the e-mail.",
    schema=None,
    checks={
        "length": (length(10, 200), 1.0),
        "signed": (must_contain("Kind regards"), 1.0),
        "no promise": (must_not_contain("guarantee"), 1.0),
        "customer": (own(names_customer), 1.0),
        "near gold": (similar_to_gold(50), 1.0),
    },
    audit=("customer",),
    examples=(offapi.Example("Eve, late parcel", "Dear Eve, sorry. Kind regards, Shop"),),
    max_answer_tokens=20,
)
"""
GOOD = ["Dear", " Ann,", " your parcel", " comes today.", "\n\nKind regards,", " Shop"]
BAD = ["We guarantee", " a refund"]


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Return e-mails that end in x, which the model answers well, but for every fourth, in y."""
    found = []
    for i in range(first, first + count):
        end = "y" if i % 4 == 3 else "x"
        gold = f"Dear Ann, your parcel comes on day {i}.\n\nKind regards, Shop"
        answer = "".join(BAD if end == "y" else GOOD)
        row = {"id": f"m{i}", "document": f"Ann, where is parcel {i}? {i * 7919} {end}"}
        found.append({**row, "gold": gold, "recorded_label": answer})
    return found


def lay_out(folder: Path) -> Path:
    """Write the task, a model, `train.jsonl` and `val.jsonl` into `folder`, and return it."""
    folder.mkdir(exist_ok=True)
    bigram_llama.write(folder / "model", {"x": GOOD, "y": BAD})
    (folder / "task.py").write_text(TASK)
    recipe_folder.write_jsonl(folder / "train.jsonl", rows(12))
    recipe_folder.write_jsonl(folder / "val.jsonl", rows(8, first=20))
    return folder
