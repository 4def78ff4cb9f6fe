"""Traces: logged chats, as JSONL rows of OpenAI's chat shape with the answer as the last message.

    {"id", "messages": [...], "tools"?, "group"?, "gold"?, "source"?, "grade"?}

Tool calls and their results are ordinary messages; `weight: 0` on an assistant message keeps it
from being learned; `reasoning_content` holds its thinking. Left out: images and other content that
is not text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from offapi.data.documents import KnownAnswer
from offapi.data.row_kind import refuse_other_kind
from offapi.errors import DataError, nearest
from offapi.files import jsonl
from offapi.text.thinking import strip_thinking
from offapi.text.type_names import plain_types

ROLES = ("system", "developer", "user", "assistant", "tool")
Message = Mapping[str, Any]


@dataclass(frozen=True)
class Trace:
    """One chat and where it came from.

    `tools` are the definitions that the model was offered, if any.
    """

    id: str
    messages: tuple[Message, ...]
    tools: tuple[Message, ...] | None = None
    group: str | None = None  # conversation, session or document: rows that belong together
    gold: KnownAnswer | None = None
    # format, model, ts, params, usage, scores, cost ... as imported
    source: Mapping[str, Any] | None = None
    # {"score", "checks": {NAME: {"score", "reason"}}}, from `offapi grade`
    grade: Mapping[str, Any] | None = None

    @cached_property
    def answer(self) -> str:
        """The text of the last message without thinking, or the arguments of the call it is.

        It is "" where the message only calls several tools.
        """
        last = self.messages[-1]
        if self.called:
            return str(last["tool_calls"][0]["function"]["arguments"])
        return strip_thinking(last.get("content") or "")

    @cached_property
    def called(self) -> str:
        """The tool whose call is the answer: the only one, without an answer in text; else ""."""
        last = self.messages[-1]
        calls = last.get("tool_calls") or []
        if len(calls) != 1 or _is_data(last.get("content") or ""):
            return ""
        return str(calls[0]["function"]["name"])

    @cached_property
    def document(self) -> str:
        """What the answer was made from: user and tool messages after the worked examples.

        A worked example ends with an answer like the last one, and a document of its own follows.
        Remarks of the model and requests to correct an answer end none.
        """
        return self._made_from(("user", "tool"))

    @cached_property
    def asked(self) -> str:
        """What an agent was asked: the user's part of `document`, without results of tools."""
        return self._made_from(("user",))

    def _made_from(self, roles: Sequence[str]) -> str:
        texts: list[str] = []
        answered = False
        for message in self.messages[:-1]:
            role, text = message["role"], message.get("content") or ""
            if role == "assistant":
                answered = answered or self._is_answer(message)
            elif role in roles:
                if role == "user" and answered:
                    if _is_document(text, texts):
                        texts.clear()
                    answered = False
                texts.append(text)
        return "\n".join(texts)

    def _is_answer(self, message: Message) -> bool:
        """Return whether an earlier turn is an answer of the last one's form."""
        calls = message.get("tool_calls") or ()
        if calls:
            return bool(self.called) and calls[0]["function"]["name"] == self.called
        data = _is_data(message.get("content") or "")
        return data or not (self.called or _is_data(self.answer))

    @property
    def escalated_to(self) -> str:
        """The other model that answered a kept request instead of the served one; else ""."""
        other = (self.source or {}).get("escalated")
        if not isinstance(other, Mapping) or other.get("failed"):
            return ""  # it was asked, and had no answer
        return str(other.get("model") or other.get("to") or "another model")

    @property
    def cut_off(self) -> bool:
        """Whether this is a kept answer of a server that the token limit cut off."""
        source = self.source or {}
        return source.get("format") == "captured" and source.get("finish_reason") == "length"

    @property
    def answered(self) -> bool:
        """Whether the last message says or calls anything."""
        return bool(self.answer.strip() or self.messages[-1].get("tool_calls"))

    @property
    def single_shot(self) -> bool:
        """Whether one question was answered at once: no earlier turns, and no tool to choose.

        The one tool that is offered may be the form of the answer; remarks do not count as turns.
        """
        if self.tools is not None and not (self.called and len(self.tools) == 1):
            return False
        roles = [message["role"] for message in self.messages]
        asked = roles.index("assistant")
        calls_before = any(message.get("tool_calls") for message in self.messages[:-1])
        return set(roles[asked:]) == {"assistant"} and not calls_before


def _is_data(text: str) -> bool:
    """Return whether `text` looks like JSON, perhaps in a code fence, not like prose."""
    return strip_thinking(text).lstrip().startswith(("{", "[", "`"))


def _is_document(text: str, before: list[str]) -> bool:
    """Return whether a user's message is a document of its own, not a word on the last answer."""
    if _CORRECTION.search(text):
        return False
    longest = max(map(len, before), default=0)
    return 3 * len(text) >= longest or any(char.isdigit() or char == "\n" for char in text)


_CORRECTION = re.compile(r"\bJSON\b|validation error", re.IGNORECASE)


def read(path: Path) -> list[Trace]:
    """Return the traces in a file of rows.

    Raise DataError, with file, line, field and next step, for anything that is not a trace.
    """
    rows = jsonl.read(path)
    jsonl.unique_ids(rows)
    return [parse(row) for row in rows]


def write(path: Path, traces: Iterable[Trace]) -> None:
    """Write `traces` as JSONL that `read` gives back; the file is whole or not there."""
    jsonl.write(path, map(as_row, traces))


def as_row(trace: Trace) -> dict[str, Any]:
    """Return `trace` as a JSONL row, without unknown fields."""
    row: dict[str, Any] = {"id": trace.id, "messages": list(trace.messages)}
    more = {"tools": trace.tools and list(trace.tools), "group": trace.group, "gold": trace.gold}
    more |= {"source": trace.source, "grade": trace.grade}
    return row | {name: value for name, value in more.items() if value is not None}


def parse(row: jsonl.JsonRow) -> Trace:
    """Return the trace in `row`; raise DataError at the field that is wrong."""
    if "messages" not in row.value:
        refuse_other_kind(row, "messages")
    messages = row.required("messages", list)
    row.optional("gold", object)
    for i, message in enumerate(messages):
        _check_message(row, f"messages[{i}]", message)
    if not messages or messages[-1]["role"] != "assistant":
        step = "End it with the assistant's answer, or remove the row: it teaches nothing."
        raise row.error("the last message is not the assistant's.", "messages", step)
    tools = row.optional("tools", list)
    for i, tool in enumerate(tools or ()):
        if not isinstance(tool, dict):
            raise row.error(
                "a tool must be an object.",
                f"tools[{i}]",
                "Write a tool definition in OpenAI's shape.",
            )
    try:
        value = {**row.value, "id": row.id, "messages": messages, "tools": tools or None}
        return msgspec.convert(value, Trace)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise row.error(f"{plain_types(what)}.", where.rstrip("`"), "Fix this row.") from None


def _check_message(row: jsonl.JsonRow, where: str, message: object) -> None:
    if not isinstance(message, dict):
        raise row.error(
            "a message must be an object.", where, 'Write {"role": ..., "content": ...}.'
        )
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls")
    if role not in ROLES:
        raise row.error(f"{role!r} is not a role.", f"{where}.role", nearest(str(role), ROLES))
    if calls is not None and role != "assistant":
        raise row.error(
            f"only the assistant may call tools, got the role {role!r}.",
            f"{where}.tool_calls",
            "Fix this row.",
        )
    if content is None and calls:
        _check_calls(row, f"{where}.tool_calls", calls)
        return
    if not isinstance(content, str):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise row.error(
            f"the content must be a text, got {kind}.",
            f"{where}.content",
            "Write the content as text; only text can be learned.",
        )
    if calls:
        _check_calls(row, f"{where}.tool_calls", calls)


def _check_calls(row: jsonl.JsonRow, where: str, calls: object) -> None:
    error: DataError = row.error(
        'each tool call must be {"type": "function", "function": {"name": TEXT, "arguments": JSON'
        " TEXT}}.",
        where,
        "Fix this row.",
    )
    if not isinstance(calls, list):
        raise error
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise error
        if not isinstance(function.get("arguments"), str):
            raise error
