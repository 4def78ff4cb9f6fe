"""How an error names its place and its cause."""

from __future__ import annotations

from offapi.errors import DataError, describe_error, place


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
