"""A model's thinking, which stands before its answer.

Left out: thinking in a field of its own (`reasoning_content`), which needs no reading.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

_TAGS = r"(?:seed:)?think(?:ing)?|thoughts?|reasoning"
_TAG = re.compile(rf"</?(?:{_TAGS})>|\[/?THINK\]")
_OPEN = re.compile(rf"\s*(?:<(?:{_TAGS})>|\[THINK\])")
_CLOSE = re.compile(rf"</(?:{_TAGS})>|\[/THINK\]")
_CHANNEL, _CHANNEL_END = re.compile(r"\s*<\|channel>"), re.compile(r"<channel\|>")  # Gemma 4
_OPEN_AT_END = re.compile(rf"(<(?:{_TAGS})>|\[THINK\])\s*$")
_EMPTY_AT_END = re.compile(
    rf"(?:<(?:{_TAGS})>\s*</(?:{_TAGS})>|\[THINK\]\s*\[/THINK\]|<\|channel>thought\s*<channel\|>)\s*$"
)
# A text from elsewhere may lack the opening tag, which its prompt had: then the answer follows the
# closing one. What a model says here has the tag (`with_opening`).
_LATE_CLOSE = re.compile(rf"(?:</(?:{_TAGS})>|\[/THINK\])(?=\s*(?:$|[\n{{\[`]))")


def strip_thinking(text: str) -> str:
    """Return `text` without the thinking before it; "" where the thinking does not end."""
    while opening := _OPEN.match(text):
        closing = _CLOSE.search(text, opening.end())
        if closing is None:
            return ""
        text = text[closing.end() :].lstrip()
    if "</" not in text and "[/THINK]" not in text:
        return text
    if text.lstrip().startswith("{"):  # the answer itself may hold such a tag
        return text
    closing = _LATE_CLOSE.search(text)
    return text[closing.end() :].lstrip() if closing else text


def mostly_thinking(texts: Sequence[str]) -> bool:
    """Return whether more than half of `texts` end before their thinking does."""
    return 2 * sum(bool(text.strip() and not strip_thinking(text)) for text in texts) > len(texts)


def inside_thinking(text: str) -> str:
    """Return what stands inside the first thinking before `text`'s answer; "" without any."""
    opening = _OPEN.match(text)
    if opening is None:
        return ""
    closing = _CLOSE.search(text, opening.end())
    return text[opening.end() : closing.start() if closing else len(text)].strip()


def end_of_thinking(text: str) -> int:
    """Return where the thinking before `text`'s answer ends; its length where that is cut off."""
    at = 0
    while opening := _OPEN.match(text, at) or _CHANNEL.match(text, at):
        close = _CHANNEL_END if opening[0].endswith("<|channel>") else _CLOSE
        closing = close.search(text, opening.end())
        if closing is None:
            return len(text)
        at = closing.end()
    return at


def is_thinking_tag(text: str) -> bool:
    """Return whether `text` is a tag around thinking; some tokenizers hold them for special."""
    return _TAG.fullmatch(text) is not None


def opening_at_end(prompt: str) -> str:
    """Return the tag with which a prompt begins the answer's thinking; "" where it does not."""
    found = _OPEN_AT_END.search(prompt)
    return found[1] if found else ""


def begins_thinking(turn: str) -> bool:
    """Return whether a turn as a template writes it begins with thinking."""
    return _OPEN.match(turn) is not None or turn.startswith("<|channel>")


def without_empty_end(prompt: str) -> str:
    """Return `prompt` without an empty thinking that ends it, by which thinking is left out."""
    return _EMPTY_AT_END.sub("", prompt)


def with_opening(text: str, opening: str) -> str:
    """Return what a model said after a prompt that ends with `opening`, with that tag.

    A text that answers at once, as one bound to JSON must, is left as it is.
    """
    if not opening or _OPEN.match(text) or _answers_at_once(text):
        return text
    return f"{opening}\n{text}"


def _answers_at_once(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    if not _CLOSE.search(text):
        return True
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
