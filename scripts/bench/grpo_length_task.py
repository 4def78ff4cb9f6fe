"""The task of `grpo_length.py`: a text about something, of TARGET tokens.

The grade is how near its length comes. Tokens are the model's own, not characters. There is no
right answer, so nothing is compared with gold.
"""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer

import offapi
from offapi.checks.verdict import Answer, Context, Verdict
from offapi.models.store import get

TARGET, MOST = 32, 64  # tokens


@cache
def tokenizer() -> Tokenizer:
    """Return the demo model's tokenizer."""
    return Tokenizer.from_file(str(get("demo").path / "tokenizer.json"))


def near_target(document: str, answer: Answer, context: Context) -> Verdict:
    """Score 1 at TARGET tokens, less by 1 / TARGET for every token more or less."""
    length = len(tokenizer().encode(answer.text, add_special_tokens=False).ids)
    return Verdict(max(0.0, 1 - abs(length - TARGET) / TARGET), f"{length} tokens")


task = offapi.Task(
    name="length",
    instructions="Write one sentence about what the user names.",
    schema={"type": "object", "properties": {"text": {"type": "string"}}},
    checks={"length": (near_target, 1.0)},
    match={"text": "text"},
    max_answer_tokens=MOST,
)
