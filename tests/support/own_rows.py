"""Made-up rows of four tasks, in the forms that users bring: a log, nested answers, texts, a table."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import recipe_folder

Row = dict[str, Any]


def chat(system: str, document: str, answer: str) -> Row:
    """Return a row of OpenAI's fine-tuning file."""
    turns = [("system", system)] if system else []
    turns += [("user", document), ("assistant", answer)]
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def tickets(path: Path, count: int = 60) -> Path:
    """Write an OpenAI fine-tuning file of triaged tickets; three answers are unlike the others."""
    draw, rows = random.Random(1), []
    for i in range(count):
        category = draw.choice(["billing", "shipping", "technical"])
        answer: Row = {
            "category": category,
            "urgent": draw.random() < 0.3,
            "order": f"A-{1000 + i}" if i % 3 else None,
        }
        text = json.dumps(answer)
        if i in (4, 40):
            text = "Sorry, I cannot sort this."
        if i == 50:
            text = json.dumps({**answer, "urgent": "maybe"})
        if i % 9 == 1:
            text = f"```json\n{text}\n```"
        words = " ".join(draw.choice(["parcel", "bill", "login", "late", "again"]) for _ in "12345")
        rows.append(chat("Sort the ticket.", f"Order A-{1000 + i}: {words}, day {i}", text))
    return recipe_folder.write_jsonl(path, rows)


def contracts(path: Path, count: int = 40) -> Path:
    """Write offapi's own traces: terms of contracts, with lists of objects and a nested object."""
    draw, rows = random.Random(2), []
    for i in range(count):
        parties = [
            {"name": f"{draw.choice(['Ash', 'Elm', 'Oak'])} {i} Ltd", "role": role}
            for role in ("buyer", "seller")
        ]
        terms: Row = {
            "parties": parties,
            "term": {"start": f"2025-{i % 12 + 1:02d}-01", "months": draw.choice([12, 24, None])},
            "obligations": [f"deliver by day {n}" for n in range(i % 3)],
            "law": draw.choice(["France", "Ireland"]),
        }
        names = " and ".join(party["name"] for party in parties)
        document = f"Contract {i * 7919} of {names}, from {terms['term']['start']}. "
        document += " ".join(f"The seller shall {duty}." for duty in terms["obligations"])
        row = chat("Extract the terms as JSON.", document, json.dumps(terms))
        rows.append({"id": f"c{i}", "group": f"client {i // 2}", **row})
    return recipe_folder.write_jsonl(path, rows)


def replies(path: Path, count: int = 40) -> Path:
    """Write an OpenAI fine-tuning file of replies to e-mails, in free text."""
    draw, rows = random.Random(3), []
    for i in range(count):
        what = draw.choice(["late", "broken", "lost"])
        cure = {"late": "It comes soon.", "broken": "We send another.", "lost": "We look for it."}
        reply = f"Dear customer,\n\nwe are sorry. {cure[what]}\n\nKind regards,\nThe shop"
        rows.append(chat("Reply politely.", f"Parcel {i * 7919} is {what}, help! ({i})", reply))
    return recipe_folder.write_jsonl(path, rows)


def invoices(path: Path, count: int = 40) -> Path:
    """Write a table of invoices: their text, and the columns of the answer."""
    draw = random.Random(4)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "text", "vendor", "date", "total", "paid"])
        for i in range(count):
            vendor = f"{draw.choice(['Ash', 'Elm', 'Oak', 'Fir'])} Works {i}"
            day, total = f"2026-{i % 12 + 1:02d}-{i % 28 + 1:02d}", f"{10 + i * 1.5:.2f}"
            text = f"{vendor}\nInvoice {i * 31}, {day}\nTotal: {total}"
            table.writerow([f"i{i}", text, vendor, day, total, draw.choice(["true", "false"])])
    return path
