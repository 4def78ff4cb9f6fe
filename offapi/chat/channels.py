"""Thinking that a model marks by channels, as special tokens, with the usual tags instead.

gpt-oss writes `<|channel|>analysis<|message|>...<|end|>` and then a message in the channel `final`;
Gemma 4 writes `<|channel>thought` and a line, and ends the thinking with `<channel|>`. Left out:
tools that a model calls in a channel, and channels in training, which the templates write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MARKS = ("<|channel|>", "<|channel>")
_MESSAGE = re.compile(
    r"<\|channel\|>(\w*).*?<\|message\|>(.*?)(?=<\|(?:end|return|call|start|channel)\|>|$)",
    re.DOTALL,
)
_THOUGHT = re.compile(r"<\|channel>(?:thought)?\n?(.*?)(?:<channel\|>|$)", re.DOTALL)


def with_tags(text: str, special: Iterable[str]) -> str:
    """Return a completion with thinking between tags, and without the special tokens `special`.

    `text` has its special tokens. Thinking that does not end has no closing tag.
    """
    if messages := list(_MESSAGE.finditer(text)):
        thoughts = [match[2] for match in messages if match[1] != "final"]
        finals = [match[2] for match in messages if match[1] == "final"]
        thinking = "<think>" + "\n".join(thoughts) if thoughts else ""
        closing = "</think>\n\n" if thinking and finals else ""
        text = thinking + closing + "".join(finals[-1:])
    else:
        text = _THOUGHT.sub(_tagged, text)
    for token in special:
        text = text.replace(token, "")
    return text


def _tagged(thought: re.Match[str]) -> str:
    return f"<think>{thought[1]}" + ("</think>\n\n" if thought[0].endswith("<channel|>") else "")
