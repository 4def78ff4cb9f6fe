"""Schemas of requests: bounded in number and size, refused by name, and never unbounded work."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import tiny_llama

from offapi.chat.chat import Chat
from offapi.errors import ConfigError
from offapi.serve import response_format
from offapi.serve.chat_request import ResponseFormat
from offapi.serve.errors import ApiError
from offapi.serve.response_format import ResponseFormats
from offapi.serve.unaccepted import UnacceptedOptions


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return Chat.load(tiny_llama.write_chat(tmp_path_factory.mktemp("model")))


def asked(schema: dict[str, Any]) -> ResponseFormat:
    return ResponseFormat("json_schema", {"name": "x", "schema": schema})


def one(name: str, **field: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {name: field or {"type": "string"}}, "required": [name]}


def test_the_last_schemas_are_kept_and_no_more(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[object] = []
    build = response_format._build
    monkeypatch.setattr(response_format, "KEPT", 2)

    def noted(schema: Any, chat: Chat) -> Any:
        built.append(schema)
        return build(schema, chat)

    monkeypatch.setattr(response_format, "_build", noted)
    formats = ResponseFormats(chat)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert formats.bound_by_schema(asked(one(name)), 90) is not None
    assert built == [one("a"), one("b"), one("c"), one("b")]


def nested(levels: int) -> dict[str, Any]:
    """Return a schema whose references unfold into 2 ** `levels` fields."""
    parts: dict[str, Any] = {}
    for i in range(levels):
        below = {"$ref": f"#/$defs/d{i + 1}"}
        parts[f"d{i}"] = {"type": "object", "properties": {"a": below, "b": below}}
    parts[f"d{levels}"] = {"type": "string"}
    return {**one("r", **{"$ref": "#/$defs/d0"}), "$defs": parts}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (nested(30), "'$ref'"),
        (one("a", type="array", items={"type": "string"}, minItems=10**9), "'minItems'"),
        (one("a", type="string", minLength=10**9), "'minLength'"),
        (one("a", type="object", dependentRequired={"b": ["c"]}), "'dependentRequired'"),
        (one("a", type="string", description="word " * 20_000), "more than 64 KiB"),
        ({"type": "object", "properties": {"a": 5}}, "'$schema'"),
        ({**one("a"), "required": ["b"]}, "'required'"),
    ],
)
def test_a_schema_that_asks_too_much_is_refused_at_once(
    chat: Chat, schema: dict[str, Any], said: str
) -> None:
    began = time.monotonic()
    with pytest.raises(ApiError) as refused:
        ResponseFormats(chat).bound_by_schema(asked(schema), 90)
    assert said in refused.value.message
    assert (refused.value.status, refused.value.param) == (400, "response_format")
    assert time.monotonic() - began < 5


def test_formats_that_are_not_formats(chat: Chat) -> None:
    formats = ResponseFormats(chat)
    assert formats.bound_by_schema(ResponseFormat(), 5) is None
    for odd in (ResponseFormat("xml"), ResponseFormat("json_schema"), asked([])):  # type: ignore[arg-type]
        with pytest.raises(ApiError) as refused:
            formats.bound_by_schema(odd, 5)
        assert refused.value.param == "response_format"
    with pytest.raises(ApiError, match="The shortest answer of the schema has") as refused:
        formats.bound_by_schema(asked(one("a")), 3)
    assert refused.value.param == "max_tokens"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"below": 0.9}, "--below says what is done with nothing"),
        ({"escalate_model": "large", "ask": Path("q.jsonl")}, "--escalate names no endpoint"),
    ],
)
def test_options_without_the_one_they_belong_to(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        UnacceptedOptions(**options)
