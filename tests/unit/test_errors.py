"""How an error names its place and its cause."""

from __future__ import annotations

from offapi.errors import DataError, describe_error, error_sentence, place


def test_a_place_names_what_is_known() -> None:
    assert place("a.jsonl") == "a.jsonl"
    assert place("a.jsonl", 3) == "a.jsonl, line 3"
    assert place("a.jsonl", 3, "gold") == "a.jsonl, line 3, field 'gold'"
    error = DataError.at("wrong.", path="a.jsonl", field="gold")
    assert error.where == "a.jsonl, field 'gold'"


def test_a_cause_has_its_type_and_its_words() -> None:
    assert describe_error(ValueError("no such field")) == "ValueError: no such field"
    assert describe_error(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert describe_error(SyntaxError("bad", ("f.py", 1, 1, "x"))) == "SyntaxError: bad"


def test_an_errors_sentence_ends_in_one_mark() -> None:
    assert error_sentence(ValueError("no such field")) == "ValueError: no such field."
    assert error_sentence(ValueError("Ends itself.")) == "ValueError: Ends itself."
    asked = SyntaxError("invalid syntax. Perhaps you forgot a comma?", ("f.py", 1, 1, "x"))
    assert error_sentence(asked) == "SyntaxError: invalid syntax. Perhaps you forgot a comma?"
