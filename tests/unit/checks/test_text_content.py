"""Checks of an answer's text: what it must contain, what it must not, how near to gold it is."""

from __future__ import annotations

import pytest

from offapi.checks import Context, must_contain, must_not_contain, similar_to_gold
from offapi.checks.verdict import Answer, Check
from offapi.errors import ConfigError


def score(check: Check, text: str, gold: str | None = None) -> float:
    return check("document", Answer(text, None), Context(gold=gold)).score


def test_an_answer_contains_what_it_must_whatever_its_case_and_spaces() -> None:
    check = must_contain("Kind regards", "Support team")
    assert score(check, "Hello.\n\nkind  regards,\nSUPPORT TEAM") == 1.0
    assert score(check, "Hello.\nKind regards, Ann") == 0.5
    assert score(check, "Hello.") == 0.0


def test_an_answer_that_contains_what_it_must_not_scores_nothing() -> None:
    check = must_not_contain("guarantee", "as an AI")
    assert score(check, "We will look into it.") == 1.0
    assert score(check, "We GUARANTEE it.") == 0.0
    verdict = check("document", Answer("Sorry, as an  ai I cannot.", None), Context())
    assert (verdict.score, verdict.reason) == (0.0, "contains 'as an AI'")


def test_an_answer_is_as_near_to_gold_as_the_words_that_they_share() -> None:
    check = similar_to_gold(60)
    gold = "we sent a new one to you today"
    assert score(check, gold, gold) == 1.0
    assert score(check, "nothing of this kind", gold) == 0.0
    assert 0.0 < score(check, "we sent a parcel", gold) < 1.0
    with pytest.raises(ConfigError, match="from 1 to 100"):
        similar_to_gold(0.6)
