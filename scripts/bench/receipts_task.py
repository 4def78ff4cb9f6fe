"""The task of `receipts.py`: vendor, date and total of a real receipt or invoice.

Its last check is of its own: the teacher saw a picture, the student reads text, so a vendor
that the text spells otherwise cannot be learned from it.
"""

from __future__ import annotations

import offapi
from offapi.checks import Answer, Context, Verdict, fits_schema, in_source, is_json
from offapi.checks.gold import bare


def vendor_as_printed(document: str, answer: Answer, context: Context) -> Verdict:
    """1 where the document has the vendor letter for letter, case and punctuation aside."""
    vendor = str((answer.value or {}).get("vendor", ""))
    found = vendor != "" and bare(vendor) in bare(document)
    return Verdict(float(found), "as printed" if found else f"not printed so: {vendor!r}")


task = offapi.Task(
    name="receipts",
    instructions=(
        "Read the receipt or invoice and answer with one JSON object and nothing else:\n"
        "vendor: the shop or company that was paid, date: when it was issued, as YYYY-MM-DD, "
        "total: what was to be paid in the end."
    ),
    schema={
        "type": "object",
        "properties": {
            "vendor": {"type": "string", "minLength": 2},
            "date": {"type": "string", "format": "date"},
            "total": {"type": "number", "exclusiveMinimum": 0},
        },
        "required": ["vendor", "date", "total"],
        "additionalProperties": False,
    },
    checks={
        "json": (is_json, 1.0),
        "schema": (fits_schema, 1.0),
        "source": (in_source, 1.0),
        "printed": (vendor_as_printed, 1.0),
    },
    match={"vendor": "text", "date": "date", "total": "number"},
)
