"""The demo's task, written as a user would write a task file.

Left out: checks that need more than the document, such as sums that must add up.
"""

from __future__ import annotations

from offapi.checks import fits_schema, in_source, is_json
from offapi.task import Example, Task

INSTRUCTIONS = """\
Read the invoice or receipt and answer with one JSON object and nothing else:
vendor: who is paid, date: when it was issued, as YYYY-MM-DD, total: what is to be paid in the end."""  # noqa: E501

SCHEMA = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string", "minLength": 1},
        "date": {"type": "string", "format": "date"},
        "total": {"type": "number", "minimum": 0},
    },
    "required": ["vendor", "date", "total"],
    "additionalProperties": False,
}

EXAMPLES = (
    Example(
        """\
INVOICE - River Park Design
Date: 2026-02-26
3 x Oak shelf: $363.25
Delivery: $8.50
Total due: $371.75""",
        {"vendor": "River Park Design", "date": "2026-02-26", "total": 371.75},
    ),
    Example(
        """\
SILVER GATE FOODS
DATE: 21/05/2024 18:42
2 COFFEE BEANS 12.90
TOTAL: RM12.90
CASH 20.00 CHANGE 7.10""",
        {"vendor": "SILVER GATE FOODS", "date": "2024-05-21", "total": 12.90},
    ),
    Example(
        """\
Date: 14 November 2023 09:15
Fare: €48.00
Tax 5%: €2.40
Total paid: €50.40
Operated by Old Bridge Motors LLC""",
        {"vendor": "Old Bridge Motors LLC", "date": "2023-11-14", "total": 50.40},
    ),
    Example(
        """\
Green Hill Books Ltd
Bill to: Ben Carter
Invoice date: 2025-09-03
Due date: 2025-09-17
Printer paper, 4 pcs: £22.00
Subtotal: £22.00
VAT 20%: £4.40
Total: £26.40""",
        {"vendor": "Green Hill Books Ltd", "date": "2025-09-03", "total": 26.40},
    ),
)

task = Task(
    name="receipts",
    instructions=INSTRUCTIONS,
    schema=SCHEMA,
    checks={
        "valid JSON": (is_json, 1.0),
        "required fields": (fits_schema, 1.0),
        "in the document": (in_source, 1.0),
    },
    match={"vendor": "text", "date": "date", "total": "number"},
    examples=EXAMPLES,
    max_answer_tokens=64,
)
