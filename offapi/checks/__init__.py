"""Checks: small pure functions that say how good an answer is, and why.

A check takes (document, answer, context) and returns a `Verdict` with a score in [0, 1]. Any
function of that shape is a check; offapi comes with these. Functions with parameters, such as
`in_range("total", low=0)`, return a check.
"""

from typing import TYPE_CHECKING, NoReturn

from offapi.checks.agent_trace import from_tools, no_repeated_calls, supported, tool_used
from offapi.checks.custom import own
from offapi.checks.gold import all_right, matches_gold
from offapi.checks.in_source import in_source
from offapi.checks.invoices.date_order import date_order
from offapi.checks.invoices.seller import in_header, legal_name
from offapi.checks.invoices.total import final_total
from offapi.checks.json_form import is_json, repairable_json
from offapi.checks.kinds import Kind, KindName, Match
from offapi.checks.schema import fits_schema
from offapi.checks.sums import adds_up
from offapi.checks.text_content import must_contain, must_not_contain, similar_to_gold
from offapi.checks.text_form import clean_characters, length, no_repetition
from offapi.checks.tool_calls import tool_calls_fit
from offapi.checks.values import in_range, known_currency, not_before, not_future, one_of, pattern
from offapi.checks.verdict import Answer, Check, Context, Verdict
from offapi.errors import ConfigError

__all__ = [
    "Answer",
    "Check",
    "Context",
    "Kind",
    "KindName",
    "Match",
    "Verdict",
    "adds_up",
    "all_right",
    "clean_characters",
    "date_order",
    "final_total",
    "fits_schema",
    "from_tools",
    "in_header",
    "in_range",
    "in_source",
    "is_json",
    "known_currency",
    "legal_name",
    "length",
    "matches_gold",
    "must_contain",
    "must_not_contain",
    "no_repeated_calls",
    "no_repetition",
    "not_before",
    "not_future",
    "one_of",
    "own",
    "pattern",
    "repairable_json",
    "similar_to_gold",
    "supported",
    "tool_calls_fit",
    "tool_used",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        if name == "judge":
            raise ConfigError(
                "`judge` is not in offapi.checks, because it asks a teacher model.",
                next_step="Write `from offapi.teachers.judge import judge` or `offapi.judge(...)`.",
            )
        raise AttributeError(f"module 'offapi.checks' has no attribute {name!r}")
