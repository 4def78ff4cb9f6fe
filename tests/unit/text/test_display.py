"""Text for people: durations, counts, and texts cut or made safe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offapi.text.display import duration, left_out, plural, safe_line, share, shorten, terminal_safe


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "1 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (420, "7 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (90_000, "25.0 h"),
    ],
)
def test_a_duration_has_the_unit_that_fits(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_noun_follows_its_count() -> None:
    counts = [plural(count, "row") for count in (0, 1, 2, 1000)]
    assert counts == ["0 rows", "1 row", "2 rows", "1,000 rows"]


def test_a_text_is_cut_to_the_length_with_its_mark() -> None:
    assert shorten("12345", 5) == "12345"
    assert shorten("123456", 5) == "1234…"
    assert shorten("123456", 5, "...") == "12..."
    assert left_out(1234) == "… (1,234 more characters)"


@given(st.text(), st.integers(3, 20), st.sampled_from(["…", "..."]))
def test_no_text_is_longer_than_it_may_be(text: str, most: int, mark: str) -> None:
    shown = shorten(text, most, mark)
    assert len(shown) <= most
    assert shown == text or text.startswith(shown.removesuffix(mark))


def test_a_terminal_obeys_nothing_that_is_shown() -> None:
    assert terminal_safe("a\r\nb\tc\x1b[2J\x9b\x7f") == "a\nb\tc\ufffd[2J\ufffd\ufffd"
    assert safe_line(" a\r\nb\t\x1b[2J \u202e c ", 20) == "a b [2J c"
    assert safe_line("123456", 5) == "12345..."


BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_text_keeps_its_direction_and_can_be_written() -> None:
    assert terminal_safe(BIDI) == "\ufffd" * len(BIDI)
    assert terminal_safe("a\ud800b\udcff") == "a\ufffdb\ufffd"
    assert terminal_safe("שלום, مرحبا 👩‍👩‍👧 é") == "שלום, مرحبا 👩‍👩‍👧 é"


@given(st.text(st.characters()))
def test_safe_text_holds_no_control_character(text: str) -> None:
    assert safe_line(text, 10_000).isprintable()
    safe = terminal_safe(text)
    assert all(char in "\n\t" or not ("\0" <= char < " ") for char in safe)
    assert not set(safe) & set(BIDI)
    assert safe.encode().decode() == safe


def test_a_share_has_the_verb_of_its_count() -> None:
    shown = [
        share(count, of, "row", ("is", "are")) for count, of in ((1, 3), (2, 3), (1, 1), (0, 1))
    ]
    assert shown == ["1 of 3 rows is", "2 of 3 rows are", "1 of 1 row is", "0 of 1 row are"]
