"""Where tokens and values stand in an answer's text."""

from __future__ import annotations

import pytest
import tiny_llama

from offapi.chat.chat import Chat
from offapi.models.store import Model
from offapi.predict.spans import token_spans, value_spans

TEXTS = (
    '{"vendor":"Café Łódź 日本 👍🏽","total":12.50}',
    '{"a": "\\u00e9\\n", "b" : null }',
    "  leading space, 中文 inside",
    "",
)


@pytest.fixture(scope="module")
def byte_chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return Chat.load(tiny_llama.write_chat(tmp_path_factory.mktemp("tiny")))


def check_spans(chat: Chat, text: str) -> None:
    tokens = (*chat.encode(text), chat.stop_ids[0])
    decoded, spans = chat.decode(tokens), token_spans(chat.decode, tokens)
    assert decoded == text
    assert len(spans) == len(tokens)
    assert spans[-1] == (len(text), len(text))  # the stop token has no text
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    for (start, end), token in zip(spans, tokens, strict=True):
        alone = chat.decode([token])
        if "\ufffd" not in alone and token not in chat.stop_ids:
            assert text[start:end] == alone


@pytest.mark.parametrize("text", TEXTS)
def test_every_token_has_the_characters_it_wrote(byte_chat: Chat, text: str) -> None:
    check_spans(byte_chat, text)


@pytest.mark.parametrize("text", TEXTS)
def test_real_tokens_have_their_characters(demo_model: Model, text: str) -> None:
    check_spans(Chat.load(demo_model.path), text)


def test_the_bytes_of_one_character_share_its_span(byte_chat: Chat) -> None:
    tokens = byte_chat.encode("aé!")
    assert token_spans(byte_chat.decode, tokens) == [(0, 1), (1, 2), (1, 2), (2, 3)]


def test_values_stand_where_they_are_written() -> None:
    text = 'So: {"vendor": "A \\"B\\" {", "lines": [{"n": 1}], "seller": {"city": null, "x": {}}, "t":1.50}'
    spans = value_spans(text, text.index("{"))
    assert {name: text[start:end] for name, (start, end) in spans.items()} == {
        "vendor": '"A \\"B\\" {"',
        "lines": '[{"n": 1}]',
        "seller": '{"city": null, "x": {}}',
        "seller.city": "null",
        "seller.x": "{}",
        "t": "1.50",
    }


def test_a_field_whose_name_has_the_dot_comes_first() -> None:
    text = '{"a": {"b": 1}, "a.b": 22}'
    assert value_spans(text)["a.b"] == (text.index("22"), text.index("22") + 2)
    text = '{"a.b": 22, "a": {"b": 1}}'
    assert value_spans(text)["a.b"] == (text.index("22"), text.index("22") + 2)


@pytest.mark.parametrize("text", ["", "[1]", '{"a": }', '{"a" 1}', "{" * 5000])
def test_no_object_no_values(text: str) -> None:
    assert value_spans(text) == {}
