"""The task of `grpo_invoices.py`: the demo's, rewarded by checks that read only the document.

When the vendor only had to occur in the document, students learned to name the customer; when it
had to be there as whole words, they named a part of it. Hence `is_seller`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from offapi.checks import date_order, final_total, fits_schema, in_source, is_json
from offapi.checks.verdict import Answer, Context, Verdict
from offapi.demo.task import task as demo

# What comes before and after a seller's name on its line in the training documents.
BEFORE = re.compile(
    r"^\W*(?:(?:sold|operated|issued|billed)"
    r" by|from|seller|vendor|merchant|invoice|receipt)\b(?:\s+-)?:?\s*",
    re.I,
)
AFTER = re.compile(r"(?:\s+-\s|:\s|\s*\|).*$")


def sellers(document: str) -> set[str]:
    """Return the lines that may name the seller, without the words around the name."""
    lines = (AFTER.sub("", BEFORE.sub("", line)).strip(" *#=.,-") for line in document.splitlines())
    return {line.casefold() for line in lines if line}


def is_seller(document: str, answer: Answer, context: Context) -> Verdict:
    """Score 1 when the vendor is all of a line that may name the seller."""
    vendor = (answer.value or {}).get("vendor")
    right = isinstance(vendor, str) and vendor.casefold() in sellers(document)
    return Verdict(float(right), "a line of its own" if right else "no line of its own")


task = replace(
    demo,
    checks={
        "valid JSON": (is_json, 1.0),
        "required fields": (fits_schema, 1.0),
        "in the document": (in_source, 1.0),
        "seller": (is_seller, 1.0),
        "order of the date": (date_order("date", default="day"), 1.0),
        "final total": (final_total("total"), 1.0),
    },
)
