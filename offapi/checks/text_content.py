"""Checks of an answer's text: what it must contain, what it must not, how near to gold it is.

They read the text alone, so they serve tasks that answer with text and those that answer with
JSON. Left out: meaning, which only a judge can read (`offapi.judge`).
"""

from __future__ import annotations

import re

from rapidfuzz import fuzz

from offapi.checks.verdict import Answer, Check, Context, Verdict, needs
from offapi.errors import ConfigError

_WORD = re.compile(r"\w+")


def must_contain(*texts: str) -> Check:
    """Return a check: the share of `texts` that the answer contains.

    Upper and lower case and the amount of white space do not count.

        checks={"signed": (must_contain("Kind regards", "Support team"), 1.0)}
    """
    wanted = _plain_texts("must_contain", texts)
    right = Verdict(1.0, "contains what it must")

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        text = _plain(answer.text)
        missing = [given for given, plain in wanted if plain not in text]
        if not missing:
            return right
        return Verdict(1.0 - len(missing) / len(wanted), f"{missing[0]!r} is missing")

    return check


def must_not_contain(*texts: str) -> Check:
    """Return a check: 0 when the answer contains one of `texts`, else 1.

    Upper and lower case and the amount of white space do not count.

        checks={"no promises": (must_not_contain("guarantee", "as an AI"), 1.0)}
    """
    unwanted = _plain_texts("must_not_contain", texts)
    right = Verdict(1.0, "contains nothing it must not")

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        text = _plain(answer.text)
        found = next((given for given, plain in unwanted if plain in text), None)
        return right if found is None else Verdict(0.0, f"contains {found!r}")

    return check


def similar_to_gold(threshold: float = 60.0) -> Check:
    """Return a check: 1 when `threshold` of 100 words are those of a gold text, else less.

    The similarity of two texts is twice the words that they share in order, by the words of both.
    It shows whether an answer says the same in nearly the same words, not whether it is right.

        checks={"near gold": (similar_to_gold(60), 1.0)}
    """
    if not 1.0 <= threshold <= 100.0:
        raise ConfigError(
            f"threshold must be from 1 to 100, got {threshold!r}.",
            next_step="Write similar_to_gold(60).",
        )

    @needs("gold")
    def check(document: str, answer: Answer, context: Context) -> Verdict:
        gold = context.gold
        if not isinstance(gold, str):
            raise ValueError("there is no gold text to compare with")
        share = similarity(answer.text, gold)
        return Verdict(min(1.0, share / threshold), f"{share:.0f}% of the words are those of gold")

    return check


def similarity(text: str, other: str) -> float:
    """Return how similar two texts are, of 100: the words they share in order."""
    words, others = (_WORD.findall(one.casefold()) for one in (text, other))
    if not words and not others:
        return 100.0 * (text.strip() == other.strip())
    return fuzz.ratio(words, others)


def _plain_texts(name: str, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return each text with its plain form; raise ConfigError for none, or an empty one."""
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ConfigError(
            f"{name} needs texts that are not empty, got {texts!r}.",
            next_step=f'Write {name}("Kind regards").',
        )
    return [(text, _plain(text)) for text in texts]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
