"""`response_format`: answers that are JSON, or JSON of the request's own schema, by a grammar.

A schema that cannot be enforced is refused; none is ever ignored. Left out: the schema of a task
(`offapi.serve.task_questions`).
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import orjson

from offapi.chat.chat import Chat
from offapi.constrain.keywords import CannotConstrain
from offapi.constrain.matcher import GrammarMatcher
from offapi.constrain.schema_bound import SchemaBound
from offapi.constrain.vocabulary import Vocabulary
from offapi.errors import OffapiError
from offapi.serve.chat_request import ResponseFormat
from offapi.serve.errors import ApiError, wrong
from offapi.text.display import plural

KEPT = 64  # schemas
LARGEST = 64 << 10  # bytes of a schema
PARAMETER = "response_format"
OBJECT: Mapping[str, Any] = {"type": "object"}
_SCHEMA_WORDS = """
    $defs $dynamicRef $id $ref $schema additionalProperties allOf anyOf const contains
    contentEncoding contentMediaType dependencies dependentRequired dependentSchemas else enum
    exclusiveMaximum exclusiveMinimum false format if items maxContains maxItems maxLength
    maxProperties maximum minContains minItems minLength minProperties minimum multipleOf not oneOf
    pattern patternProperties prefixItems properties propertyNames required then type
    unevaluatedItems unevaluatedProperties uniqueItems
"""
_KEYWORDS = frozenset(_SCHEMA_WORDS.split())
_WORD = re.compile(r"\$?[A-Za-z]+")


class SchemaStart:
    """Starts the matchers of a request's completions, as `offapi.engine.StartMatcher`."""

    def __init__(self, bound: SchemaBound, max_tokens: int) -> None:
        self._bound, self._max_tokens = bound, max_tokens
        self._matchers: dict[int, GrammarMatcher] = {}

    def __call__(self, sample: int) -> GrammarMatcher:
        """Return the matcher of a completion. Called in the engine's thread."""
        matcher = self._matchers[sample] = self._bound.start(self._max_tokens)
        return matcher

    def cut(self, sample: int) -> bool:
        """Return whether the limit ended a completion, which is whole JSON nevertheless."""
        return sample in self._matchers and self._matchers[sample].cut


class ResponseFormats:
    """What binds answers to the formats that requests ask for; the last schemas are kept."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._known: OrderedDict[bytes, SchemaBound] = OrderedDict()

    def bound_by_schema(self, format: ResponseFormat, max_tokens: int) -> SchemaStart | None:
        """Return what bounds completions of at most `max_tokens`; None where they are text.

        Raise ApiError (400), naming the keyword, for a schema that cannot be enforced, and where
        `max_tokens` has no room for any answer.
        """
        schema = schema_of(format)
        if schema is None:
            return None
        bound = self._bound(schema)
        least = bound.needs.least or 1
        if max_tokens < least:
            message = f"The shortest answer of the schema has {plural(least, 'token')}."
            raise wrong("max_tokens", message, "invalid_value")
        return SchemaStart(bound, max_tokens)

    def _bound(self, schema: Mapping[str, Any]) -> SchemaBound:
        text = orjson.dumps(schema)
        if len(text) > LARGEST:
            raise _refuse(f"it has more than {LARGEST >> 10} KiB.")
        key = hashlib.sha256(text).digest()
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = _build(schema, self._chat)
        self._known.move_to_end(key)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return found


def schema_of(format: ResponseFormat) -> Mapping[str, Any] | None:
    """Return the schema that a format asks for; None for text. Raise ApiError for an odd one."""
    if format.type == "text":
        return None
    if format.type == "json_object":
        return OBJECT
    if format.type != "json_schema":
        message = "'response_format.type' must be text, json_object or json_schema."
        raise wrong(PARAMETER, message, "invalid_value")
    schema = (format.json_schema or {}).get("schema")
    if not isinstance(schema, dict):
        message = "'response_format.json_schema.schema' must be a JSON schema."
        raise wrong(PARAMETER, message, "invalid_type")
    return schema


def _build(schema: Mapping[str, Any], chat: Chat) -> SchemaBound:
    try:
        return SchemaBound.of(schema, Vocabulary.of(chat))
    except CannotConstrain as error:
        keyword = _keyword(error.keyword)
        raise _refuse(f"{keyword!r} is not supported as it stands there.") from None
    except OffapiError:
        raise _refuse("this model's tokenizer cannot be constrained.") from None


def _refuse(why: str) -> ApiError:
    message = f"The schema of 'response_format' cannot be enforced: {why}"
    return wrong(PARAMETER, message, "invalid_json_schema")


def _keyword(said: str) -> str:
    """Return the keyword that an error is about; its words may hold parts of the schema."""
    if "regex" in said:
        return "pattern"
    words = _WORD.findall(said)
    return next((word for word in words if word in _KEYWORDS), "$schema")
