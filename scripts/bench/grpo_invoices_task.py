"""The task of `grpo_invoices.py`: the demo's, rewarded by checks that read the document and never see gold.

Rewarding the vendor for occurring in the document alone taught students to name the customer:
hence `is_seller`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from offapi.checks import date_order, final_total, fits_schema, in_source, is_json
from offapi.checks.verdict import Answer, Context, Verdict
from offapi.demo.task import task as demo

BUYER = re.compile(
    r"(?:bill(?:ed)? to|guest|dear|received from|customer|ship(?:ped)? to|sold to|for):?\s*$", re.IGNORECASE
)


def is_seller(document: str, answer: Answer, context: Context) -> Verdict:
    """1 when the vendor stands in the document letter by letter, as whole words, and not where a buyer is named."""
    vendor = str((answer.value or {}).get("vendor") or "").strip()
    found = [match.start() for match in re.finditer(rf"(?<!\w){re.escape(vendor)}(?!\w)", document, re.IGNORECASE)]
    if not vendor or not found:
        return Verdict(0.0, "not in the document as it is written")
    buyer = all(BUYER.search(document[:at]) for at in found)
    return Verdict(0.0, "stands where the buyer is named") if buyer else Verdict(1.0, "stands in the document")


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
