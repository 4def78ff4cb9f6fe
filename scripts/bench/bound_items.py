"""Write the demo's task with a quoted vendor, and a small task of line items, with documents.

\b
python scripts/bench/bound_items.py bench-bound
python scripts/bench/bound.py bench-bound/demo.py bench-bound/demo.jsonl --shots 4
python scripts/bench/bound.py bench-bound/items.py bench-bound/items.jsonl --shots 2
"""

from __future__ import annotations

import random
from pathlib import Path

import click
import orjson

from offapi.demo.generate import generate

DEMO = """\
from dataclasses import replace

import offapi
from offapi.demo.task import task as demo

task = replace(demo, bind=offapi.quote("vendor"))
"""
ITEMS = """\
import offapi
from offapi.checks import fits_schema, in_source, is_json

ITEM = {
    "type": "object",
    "properties": {"name": {"type": "string", "x-quote": True}, "price": {"type": "number"}},
    "required": ["name", "price"],
    "additionalProperties": False,
}
task = offapi.Task(
    name="items",
    instructions="List what was bought as one JSON object: items, each with name and price.",
    schema={
        "type": "object",
        "properties": {"items": {"type": "array", "items": ITEM}},
        "required": ["items"],
        "additionalProperties": False,
    },
    checks={"json": (is_json, 1.0), "schema": (fits_schema, 1.0), "source": (in_source, 1.0)},
    match={"items": "list"},
    examples=tuple(offapi.Example(text, {"items": items}) for text, items in EXAMPLES),
    max_answer_tokens=160,
)
"""
GOODS = [
    "Tea", "Rye loaf", "Oat milk", "Lamp", "Desk chair", "Printer paper", "Blue pens", "Salt",
    "Olive oil", "Plates",
]  # fmt: skip


def receipt(chance: random.Random) -> tuple[str, dict[str, object]]:
    """Return a receipt of a few lines, and its items."""
    items = [
        {"name": name, "price": chance.randint(100, 9999) / 100}
        for name in chance.sample(GOODS, chance.randint(2, 6))
    ]
    total = sum(float(str(item["price"])) for item in items)
    lines = [f"{item['name']}  {item['price']:.2f}" for item in items]
    return "\n".join(["CORNER SHOP", *lines, f"TOTAL {total:.2f}", "THANK YOU"]), {"items": items}


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--count", default=40, show_default=True, help="Documents of each task.")
def main(folder: Path, count: int) -> None:
    """Write both tasks and their documents."""
    folder.mkdir(exist_ok=True)
    chance = random.Random(0)
    made = [receipt(chance) for _ in range(count + 2)]
    examples = repr([(text, gold["items"]) for text, gold in made[:2]])
    (folder / "items.py").write_text(f"EXAMPLES = {examples}\n{ITEMS}")
    rows = [{"id": f"i{i}", "document": d, "gold": gold} for i, (d, gold) in enumerate(made[2:])]
    (folder / "items.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    (folder / "demo.py").write_text(DEMO)
    demo = [
        {"id": row.id, "document": row.text, "gold": row.gold} for row in generate("test", count)
    ]
    (folder / "demo.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in demo))


if __name__ == "__main__":
    main()
