"""A model's thinking, which stands before its answer.

Left out: thinking in a field of its own (`reasoning_content`), which needs no reading.
"""

from __future__ import annotations

import re

_TAGS = r"(?:seed:)?think(?:ing)?|thoughts?|reasoning"
_OPEN = re.compile(rf"\s*(?:<(?:{_TAGS})>|\[THINK\])")
_CLOSE = re.compile(rf"</(?:{_TAGS})>|\[/THINK\]")
# A template may write the opening tag into the prompt: then the answer follows the closing one.
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
