"""The constraint of a JSON schema alone: what a request asks of one answer, without a task.

Left out: what a document prints (`offapi.constrain.constraints`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from offapi.checks.schema import schema_validator
from offapi.constrain.constraints import Needs
from offapi.constrain.grammar import Grammar
from offapi.constrain.keywords import refused
from offapi.constrain.matcher import GrammarMatcher
from offapi.constrain.vocabulary import Vocabulary

if TYPE_CHECKING:
    from llguidance import LLMatcher

_LIMIT = 1024  # tokens within which an answer's shortest end is looked for


@dataclass(frozen=True)
class SchemaBound:
    """A schema's grammar for the tokens of one model, to be copied for each answer."""

    vocabulary: Vocabulary
    matcher: LLMatcher
    needs: Needs

    @classmethod
    def of(cls, schema: Mapping[str, Any], vocabulary: Vocabulary) -> Self:
        """Return the constraint of `schema`, whose answers need not be objects.

        Raise CannotConstrain for a schema that is invalid or cannot be enforced.
        """
        from llguidance import LLMatcher

        try:
            schema_validator(schema)
            text, part = Grammar(schema, _unbound, _plain).whole()
        except (ValueError, TypeError, RecursionError):
            raise refused("", "$schema", "it is not a valid JSON schema") from None
        matcher = LLMatcher(vocabulary.tokenizer, text)
        if matcher.is_error():
            raise refused("", matcher.get_error().splitlines()[0], "it cannot be built")
        needs = Needs.of(matcher, part, vocabulary, _LIMIT)
        if needs.least is None:
            raise refused("", "required", "no way to end an answer was found")
        return cls(vocabulary, matcher, needs)

    def start(self, max_tokens: int) -> GrammarMatcher:
        """Return the matcher of one answer of at most `max_tokens`, at least `needs.least`."""
        room = self.needs.room(max_tokens)
        return GrammarMatcher(self.matcher.deep_copy(), self.vocabulary, room)


def _unbound(path: str, part: Mapping[str, Any]) -> None:
    """Return that nothing but the schema binds a field."""


def _plain(path: str) -> bool:
    """Return that no number is written as an amount."""
    return False
