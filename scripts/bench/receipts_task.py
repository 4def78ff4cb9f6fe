"""The task of `receipts.py`: vendor, date and total of a real receipt or invoice.

None of its checks reads gold. The teacher saw a picture, the student reads text. A vendor that the
text spells differently cannot be learned from it, so it must be a line of the header.
"""

from __future__ import annotations

import offapi
from offapi.checks import (
    date_order,
    final_total,
    fits_schema,
    in_header,
    in_source,
    is_json,
    legal_name,
)

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
        "header": (in_header("vendor"), 1.0),
        "company": (legal_name("vendor"), 1.0),
        "order": (date_order("date", default="day"), 1.0),
        "paid": (final_total("total"), 1.0),
    },
    match={"vendor": "text", "date": "date", "total": "number"},
)
