"""Tasks, a chat of bytes, and answers drawn at random from what a constraint allows."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tiny_llama

import offapi
from offapi.chat.chat import Chat
from offapi.checks import is_json
from offapi.constrain.vocabulary import Vocabulary, ids_of
from offapi.engine import Matcher
from offapi.task import Task

RECEIPT = "TIMES BOOKSTORES\nLOT F21 @ 22, CITTA MALL\nTOTAL  RM  12.37\nDATE: 23/04/2017"
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string", "minLength": 2},
        "date": {"type": "string", "format": "date"},
        "total": {"type": "number", "exclusiveMinimum": 0},
    },
    "required": ["vendor", "date", "total"],
    "additionalProperties": False,
}
MATCH = {"vendor": "text", "date": "date", "total": "number"}


def task_of(schema: Mapping[str, Any] = SCHEMA, **parts: Any) -> Task:
    """Return a task with `schema` whose fields are compared as whole texts unless said."""
    names = list(schema["properties"])
    defaults = {"match": MATCH if schema is SCHEMA else {names[0]: "exact"}}
    checks = {"json": (is_json, 1.0)}
    return offapi.Task("receipts", "Read it.", schema, checks, **{**defaults, **parts})


def byte_chat(folder: Path) -> Chat:
    """Return the chat of a tiny model whose tokens are bytes."""
    return Chat.load(tiny_llama.write_chat(folder))


def allowed(matcher: Matcher, vocabulary: Vocabulary) -> list[int]:
    """Return the tokens that `matcher` allows next."""
    words = np.zeros(vocabulary.words, np.int32)
    assert matcher.fill(words)
    return [int(token) for token in ids_of(words)]


def draw(matcher: Matcher, chat: Chat, seed: int, limit: int) -> str:
    """Return an answer of at most `limit` tokens, each drawn evenly from those allowed."""
    vocabulary, chance, tokens = Vocabulary.of(chat), random.Random(seed), list[int]()
    while len(tokens) < limit and not set(tokens[-1:]) & set(chat.stop_ids):
        tokens.append(chance.choice(allowed(matcher, vocabulary)))
        matcher.accept(tokens[-1])
    return chat.decode(tokens)


def reaches(matcher: Matcher, chat: Chat, text: str) -> bool:
    """Return whether `text` may be the whole answer."""
    vocabulary = Vocabulary.of(chat)
    for token in [*chat.encode(text), chat.stop_ids[0]]:
        if token not in allowed(matcher, vocabulary):
            return False
        matcher.accept(token)
    return True
