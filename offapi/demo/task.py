"""The demo's task, written as a user would write a task file.

Left out: checks that need more than the document, such as sums that must add up.
"""

from __future__ import annotations

from offapi.checks import fits_schema, in_source, is_json
from offapi.task import Example, Task

INSTRUCTIONS = """\
Read the invoice or receipt and answer with one JSON object and nothing else:
vendor: who is paid, date: when it was issued, as YYYY-MM-DD, total: what is to be paid in the end."""

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
Harlow Stationers Ltd
12 Station Road, Leeds
Bill to: Ben Carter
Invoice INV-20417
Invoice date: 03/09/2025
Due date: 17/09/2025
Printer paper, 4 pcs: £22.00
Shipping: £8.50
Subtotal: £30.50
VAT (20%): £6.10
Balance due: £36.60""",
        {"vendor": "Harlow Stationers Ltd", "date": "2025-09-03", "total": 36.60},
    ),
    Example(
        """\
OLMEDO & FINCH S.L.
7 Mill Lane, Seville
21.05.2024 18:42
2 COFFEE BEANS  1.290,00
1 HAND SOAP  4,50
SUBTOTAL  1.294,50
VAT 10%  129,45
TOTAL  1.423,95 €
CASH  1.440,00
CHANGE  16,05
THANK YOU""",
        {"vendor": "Olmedo & Finch S.L.", "date": "2024-05-21", "total": 1423.95},
    ),
    Example(
        """\
RECEIPT
Trip on 14 November 2023 at 09:15
Passenger: Mia Brown
Fare  RM48.00
Toll  RM4.50
Tax  RM3.15
Total paid  RM55.65
Operated by The Kestrel Motors""",
        {"vendor": "The Kestrel Motors", "date": "2023-11-14", "total": 55.65},
    ),
    Example(
        """\
From: Montrose Design Studio LLC
To: Olga Petrova
Issued: 02/26/2026  Pay by: 03/28/2026
GRAND TOTAL: $1,208.40
including tax $68.40, carriage $0.00
- Oak shelf (3)  $1,140.00""",
        {"vendor": "Montrose Design Studio LLC", "date": "2026-02-26", "total": 1208.40},
    ),
)

task = Task(
    name="receipts",
    instructions=INSTRUCTIONS,
    schema=SCHEMA,
    checks={"valid JSON": (is_json, 1.0), "required fields": (fits_schema, 1.0), "in the document": (in_source, 1.0)},
    match={"vendor": "text", "date": "date", "total": "number"},
    examples=EXAMPLES,
    max_answer_tokens=64,
)
