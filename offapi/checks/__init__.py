"""Checks: small pure functions that say how good an answer is, and why.

A check takes (document, answer, context) and returns a `Verdict` with a score in [0, 1].
Any function of that shape is a check; these are the ones that come with offapi.
"""

from offapi.checks.date_order import date_order
from offapi.checks.final_total import final_total
from offapi.checks.gold import matches_gold
from offapi.checks.schema import fits_schema
from offapi.checks.seller import in_header, legal_name
from offapi.checks.source_text import in_source
from offapi.checks.valid_json import is_json
from offapi.checks.verdict import Answer, Check, Context, Match, Verdict

__all__ = [
    "Answer",
    "Check",
    "Context",
    "Match",
    "Verdict",
    "date_order",
    "final_total",
    "fits_schema",
    "in_header",
    "in_source",
    "is_json",
    "legal_name",
    "matches_gold",
]
