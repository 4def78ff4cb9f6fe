"""Marks that a logger leaves in place of content: masks, references to media, signs of shortening.

The list is one for all formats, since logs are exported from one tool into another. A mask is the
whole of a text; a mark may be anywhere in it. Left out: parts of a text that an application
anonymized itself, which is what its model saw.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.traces import Message

LONGEST = 160  # characters of a mask
MARKS = (  # in brackets, which most texts have none of; that is seen fast
    "<truncated due to size exceeding limit>",  # Langfuse
    "[This value has been dropped because",  # Datadog
    "[Scrubbed due to '",  # Logfire
)
MEDIA = "@@@langfuseMedia:"
PLACEHOLDERS = frozenset(
    {"default-message-value", "redacted-by-litellm", "Unserializable value", "<unserializable>"}
)
WORDS = (
    r"redacted|masked|scrubbed|elided|omitted|hidden|filtered|removed|anonymi[sz]ed|suppressed"
    r"|truncated|not\ captured|not\ recorded|not\ logged|sanitized|withheld|obfuscated"
)
MASK = re.compile(
    rf"[<\[({{_*#]+ \s* (?:[\w' -]{{0,40}}[ _-])? (?:{WORDS}) (?:[ :_,.-][^<>\[\]]{{0,80}})?"
    rf"\s* [>\])}}_*#]+ | REDACTED | MASKED | \*{{3,}} | [█▓]{{3,}} | [xX]{{8,}}",
    re.VERBOSE | re.IGNORECASE,
)
QUOTED = re.compile(r'"([<\[*_][^"\\]{2,80})"')
ENDS = ("]", ")", ">")
SHORTENED = re.compile(
    r"(?:\.\.\.|…)? \s* [\[(<{] \s* (?:\.\.\.|…)? \s* (?:[\w,]+\s){0,4}"
    r"truncated \b [^\[\]()<>{}]{0,60} [\])>}] \Z",
    re.VERBOSE | re.IGNORECASE,
)


def lost_content(chat: Sequence[Message]) -> Dropped | None:
    """Return the reason where a message holds a logger's mark instead of its content."""
    for text in _texts(chat):
        if "@" in text and MEDIA in text:
            return reasons.IMAGE if f"{MEDIA}type=image/" in text else reasons.DOCUMENT
        if text[:5] == "data:" and ";base64," in text[:80]:
            return reasons.IMAGE if text.startswith("data:image/") else reasons.DOCUMENT
        if "_" in text and ("litellm_truncated" in text or "__REDACTED__" in text):
            return reasons.REDACTED
        if ("[" in text or "<" in text or "(" in text) and _has_mark(text):
            return reasons.REDACTED
        if len(text) <= LONGEST and '"' not in text and _is_mask(text):
            return reasons.REDACTED
    return reasons.REDACTED if _has_masked_value(chat) else None


def _has_masked_value(chat: Sequence[Message]) -> bool:
    """Return whether a value of the JSON answer is a mask that nobody before the answer wrote."""
    answer = chat[-1]["content"]
    if not answer or not ("<" in answer or "[" in answer or "*" in answer or "_" in answer):
        return False
    asked = [message["content"] or "" for message in chat[:-1]]
    for value in QUOTED.findall(answer):
        if MASK.fullmatch(value) and not any(value in text for text in asked):
            return True
    return False


def _texts(chat: Sequence[Message]) -> list[str]:
    texts = [message["content"] for message in chat if message["content"]]
    for message in chat:
        if "tool_calls" in message:
            texts += [call["function"]["arguments"] for call in message["tool_calls"]]
    return texts


def _is_mask(text: str) -> bool:
    stripped = text.strip()
    return stripped in PLACEHOLDERS or MASK.fullmatch(stripped) is not None


def _has_mark(text: str) -> bool:
    """Return whether a text has a mark, or ends with a sign that its end is missing."""
    end = text[-LONGEST:].rstrip(" \n.…")
    if end.endswith(ENDS) and "runcated" in end.lower() and SHORTENED.search(end):
        return True
    return any(mark in text for mark in MARKS)
