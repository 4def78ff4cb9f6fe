"""A turn that is bound to calls or an answer: whatever a model draws, no call is malformed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import orjson
import pytest
import tool_templates

from offapi import Task
from offapi.chat.chat import Chat
from offapi.chat.tool_format import ToolFormat
from offapi.checks import is_json
from offapi.checks.schema import schema_validator
from offapi.constrain.constraints import Constraints
from offapi.constrain.tool_calls import bound_turn
from offapi.constrain.vocabulary import Vocabulary, ids_of
from offapi.errors import ConfigError

FIND = {
    "type": "object",
    "properties": {
        "q": {"type": "string"},
        "n": {"type": "integer", "minimum": 1, "maximum": 9},
        "kind": {"enum": ["shop", "bank"]},
    },
    "required": ["q", "kind"],
    "additionalProperties": False,
}
GET = {"type": "object", "properties": {"ids": {"type": "array", "items": {"type": "integer"}}}}
SCHEMAS = {"find": FIND, "get": {**GET, "required": ["ids"], "additionalProperties": False}}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "It.", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
BOUND = ("hermes", "llama", "mistral", "mistral, names", "fallback")
ANSWER = {
    "type": "object",
    "properties": {"vendor": {"type": "string"}},
    "required": ["vendor"],
    "additionalProperties": False,
}
LIMIT = 400


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Chat]:
    return tool_templates.chats(tmp_path_factory.mktemp("model"))


def drawn(start: Any, chat: Chat, begin: str, seed: int) -> tuple[int, ...]:
    """Return a turn that begins with `begin` and is drawn from what is allowed."""
    draw, matcher, tokens = random.Random(seed), start(0), list(chat.encode(begin))
    words = np.zeros(Vocabulary.of(chat).words, np.int32)
    for token in tokens:
        matcher.fill(words)
        assert token in ids_of(words), chat.text_of([token])
        matcher.accept(token)
    while len(tokens) < LIMIT:
        matcher.fill(words)
        tokens.append(int(draw.choice(list(ids_of(words)))))
        if tokens[-1] in chat.stop_ids:
            return tuple(tokens)
        matcher.accept(tokens[-1])
    return tuple(tokens)


@pytest.mark.parametrize("family", BOUND)
def test_whatever_is_drawn_no_call_is_malformed(chats: dict[str, Chat], family: str) -> None:
    chat = chats[family]
    form = ToolFormat.of(chat, TOOLS)
    task = Task(
        name="a",
        instructions="Go.",
        checks={"json": (is_json, 1.0)},
        schema=ANSWER,
        match={"vendor": "text"},
        max_answer_tokens=LIMIT,
    )
    answer = Constraints.of(task, chat, "schema").start("")
    heads = {
        "llama": '{"name": "',
        "mistral": '[TOOL_CALLS] [{"name": "',
        "mistral, names": "[TOOL_CALLS]",
        "fallback": '<tool_call>{"name": "',
        "hermes": '<tool_call>\n{"name": "',
    }
    for bounded in (None, answer):
        start = bound_turn(form, TOOLS, bounded, LIMIT)
        for seed in range(2):
            tokens = drawn(start, chat, heads[family] + ("find", "get")[seed % 2], seed)
            turn = form.read(tokens)
            assert tokens[-1] in chat.stop_ids
            assert turn.calls
            assert not turn.malformed
            for call in turn.calls:
                assert schema_validator(SCHEMAS[call.name]).is_valid(dict(call.arguments))
        said = form.read(drawn(start, chat, '{"vendor":"A' if bounded else "It is", 7))
        assert said.final
        if bounded is not None:
            assert schema_validator(ANSWER).is_valid(orjson.loads(said.text))
    if family in ("hermes", "fallback"):  # text may stand before calls, where the answer is free
        free = bound_turn(form, TOOLS, None, LIMIT)
        turn = form.read(drawn(free, chat, f"Hm <b>\n{heads[family]}get", 1))
        assert (turn.text.startswith("Hm <b>"), turn.malformed) == (True, ())


def test_near_the_limit_no_call_begins(chats: dict[str, Chat]) -> None:
    chat = chats["hermes"]
    form = ToolFormat.of(chat, TOOLS)
    matcher = bound_turn(form, TOOLS, None, LIMIT)(0)
    text = chat.encode("a" * (LIMIT - 30) + "<tool_call>")
    words = np.zeros(Vocabulary.of(chat).words, np.int32)
    for token in text[:-1]:
        matcher.fill(words)
        assert token in ids_of(words)
        matcher.accept(token)
    matcher.fill(words)
    allowed = {chat.text_of([token]) for token in ids_of(words)}
    assert {"a", "<", "<|end|>"} <= allowed
    assert ">" not in allowed


def test_what_cannot_be_bound_is_said(chats: dict[str, Chat]) -> None:
    for family in ("gemma", "qwen-xml", "gpt-oss", "lfm"):
        form = ToolFormat.of(chats[family], TOOLS)
        with pytest.raises(ConfigError, match=f"calls written as {form.name} cannot be constr"):
            bound_turn(form, TOOLS, None, LIMIT)
    form = ToolFormat.of(chats["hermes"], TOOLS)
    with pytest.raises(ConfigError, match="max_answer_tokens = 20 has no room for a call"):
        bound_turn(form, TOOLS, None, 20)
