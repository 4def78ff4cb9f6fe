"""Tokens as text: what is sent as it comes is what the whole text is."""

from __future__ import annotations

import pytest
import tiny_llama

from offapi.chat.chat import Chat
from offapi.serve.text_stream import TextStream

TEXT = 'Zoë paid 5 € for 日本語 👩‍👩‍👧 and "quotes"\n\tin a tab, the end.'


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    folder = tmp_path_factory.mktemp("model")
    tiny_llama.write_chat(folder)
    return Chat.load(folder)


def pieces(stream: TextStream, tokens: tuple[int, ...]) -> list[str]:
    """Return what is sent for each token, and at the end."""
    sent = []
    for token in tokens:
        if not stream.stopped:
            sent.append(stream.add(token))
    return [*sent, stream.finish()]


def test_the_pieces_are_the_text(chat: Chat) -> None:
    tokens = chat.encode(TEXT)
    sent = pieces(TextStream(chat), tokens)
    assert "".join(sent) == chat.decode(tokens) == TEXT
    assert "\ufffd" not in "".join(sent)
    assert len([piece for piece in sent if piece]) > 10


def test_a_cut_character_comes_at_the_end(chat: Chat) -> None:
    tokens = chat.encode("€")[:-1]
    sent = pieces(TextStream(chat), tokens)
    assert "".join(sent) == chat.decode(tokens)


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (("paid",), "Zoë "),
        (("nothing like it", "for 日"), "Zoë paid 5 € "),
        ((" and", "5"), "Zoë paid "),
        (("Zoë",), ""),
        (("end.x", "the ending"), TEXT),
    ],
)
def test_the_text_ends_before_a_stop_string(
    chat: Chat, stops: tuple[str, ...], expected: str
) -> None:
    stream = TextStream(chat, stops)
    assert "".join(pieces(stream, chat.encode(TEXT))) == expected
    assert stream.stopped == (expected != TEXT)


def test_what_may_begin_a_stop_string_is_held_back(chat: Chat) -> None:
    stream = TextStream(chat, ("abcabd",))
    sent = [stream.add(token) for token in chat.encode("abcab")]
    assert "".join(sent) == ""
    sent += [stream.add(token) for token in chat.encode("cabx")]
    assert "".join([*sent, stream.finish()]) == "abcabcabx"
