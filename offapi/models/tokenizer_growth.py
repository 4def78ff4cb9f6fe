"""How much longer a tokenizer's replacements can make a text.

Forty rules that each double one letter make a word of it larger than any memory. Left out: what
regular expressions cost; `template_probe` tries them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from offapi.errors import ModelError
from offapi.models.settings_files import SOURCE, read_object

MOST = 100.0  # times; a usual tokenizer replaces characters one by one


def check_growth(folder: Path) -> None:
    """Raise ModelError where the rules of tokenizer.json can make a text MOST times as long."""
    path = folder / "tokenizer.json"
    content = read_object(path)
    for part in ("normalizer", "decoder"):
        factor = 1.0
        for rule in _replacements(content.get(part)):
            factor *= _growth(rule)
            if factor > MOST:
                raise ModelError(
                    f"the replacements of the tokenizer's {part} can make a text over"
                    f" {MOST:g} times as long.",
                    where=f"{path}, field '{part}'",
                    next_step=SOURCE,
                )


def _replacements(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if each.get("type") == "Replace":
                yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _growth(rule: dict[str, Any]) -> float:
    """Return how many times as long a text can get; an expression may match one character."""
    pattern = rule.get("pattern")
    plain = pattern.get("String") if isinstance(pattern, dict) else None
    matched = len(plain) if isinstance(plain, str) else 1
    return max(1.0, len(str(rule.get("content"))) / max(1, matched))
