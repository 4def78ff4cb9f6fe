"""The task of `grpo_invoices.py`: the demo's, rewarded by checks that read the document and never see gold."""

from __future__ import annotations

from dataclasses import replace

from offapi.checks import date_order, final_total, fits_schema, in_source, is_json
from offapi.demo.task import task as demo

task = replace(
    demo,
    checks={
        "valid JSON": (is_json, 1.0),
        "required fields": (fits_schema, 1.0),
        "in the document": (in_source, 1.0),
        "order of the date": (date_order("date", default="day"), 1.0),
        "final total": (final_total("total"), 1.0),
    },
)
