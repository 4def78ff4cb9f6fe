"""Served rows of a made-up task, the same at every call, for tests of drift."""

from __future__ import annotations

import json
import random


def row(i: int, prefix: str, bad: bool = False) -> str:
    """Return one line of JSON Lines: a receipt, its total, and `prefix` and `i` in its id."""
    draw = random.Random(f"{prefix}{i}")
    total = draw.randint(100, 900) * (10 if bad else 1)
    question = f"Receipt {i}\n" + "1 x thing 5.00\n" * draw.randint(1, 6) + f"Sum: {total}"
    answer = {"role": "assistant", "content": json.dumps({"total": total})}
    chat = [{"role": "user", "content": question}, answer]
    return json.dumps({"id": f"{prefix}{i}", "messages": chat, "gold": {"total": total}}) + "\n"
