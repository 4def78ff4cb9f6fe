"""Check: the answer has the required fields and fits the task's JSON schema.

Left out: references to external schemas. Nothing is ever fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn

import jsonschema_rs
import orjson

from offapi.checks.verdict import Answer, Context, Verdict, needs


@needs("object")
def fits_schema(document: str, answer: Answer, context: Context) -> Verdict:
    """Return 1 when the answer fits `context.schema`, else 0.

    The schema is JSON Schema, draft 2020-12 unless it names another.
    """
    if answer.value is None:
        return Verdict(0.0, answer.error)
    try:
        schema_validator(context.schema).validate(answer.value)
    except jsonschema_rs.ValidationError as error:
        where = ".".join(str(part) for part in error.instance_path)
        return Verdict(0.0, f"field {where!r}: {error.message}" if where else error.message)
    return Verdict(1.0, "fits the schema")


def schema_validator(schema: Mapping[str, Any]) -> jsonschema_rs.Validator:
    """Return the compiled validator of `schema`; ValueError when it is not a valid JSON schema."""
    return _compiled(orjson.dumps(dict(schema)))


@lru_cache(maxsize=64)
def _compiled(schema: bytes) -> jsonschema_rs.Validator:
    try:
        return jsonschema_rs.validator_for(
            orjson.loads(schema), retriever=_refuse, validate_formats=True
        )
    except jsonschema_rs.ValidationError as error:
        raise ValueError(error.message) from None


def _refuse(uri: str) -> NoReturn:
    # The library would fetch it through its own sockets, which no guard in Python sees.
    raise ValueError(f"{uri} is an external schema; write it into this one under $defs")
