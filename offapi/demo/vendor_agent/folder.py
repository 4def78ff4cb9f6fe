"""The files of a task folder of the example `vendor-agent`.

Left out: the demonstrations, which `offapi label` writes with the folder's own tools.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from offapi.data import documents
from offapi.demo.facts import Split
from offapi.demo.vendor_agent import demonstrate, task
from offapi.demo.vendor_agent.companies import draw_companies
from offapi.demo.vendor_agent.documents import generate_receipts
from offapi.demo.vendor_agent.register import write_register
from offapi.init.recipe_files import Keys, packaged, with_keys

COMPANIES = 5000
SIZES: dict[Split, int] = {"train": 200, "val": 16, "test": 40}
RECIPES: dict[str, Keys] = {
    "filtered_sft": {
        "traces": "demonstrations.jsonl",
        "prompt": "trace",
        "control": False,
        "max_tokens": 4096,
    },
    "grpo": {"adapter": "runs/filtered-sft/adapter", "max_tokens": 4096, "eval_every": 10},
}
README = """\
# An agent that looks names up

Receipts print a company's name shortened or misread. `register.db` holds {companies:,} companies,
and the model may search it: `search_vendors(query)`, `get_vendor(id)`. The answer carries the
registered name.

    offapi models add demo                    # once
    offapi label --task {folder}/task.py --data {folder}/train.jsonl \\
      --teacher script:{folder}/demonstrate.py --out {folder}/demonstrations.jsonl
    offapi train {folder}/filtered_sft.toml   # learns the demonstrations
    offapi train {folder}/grpo.toml           # learns from its own attempts
    offapi eval --task {folder}/task.py --data {folder}/test.jsonl --adapter runs/grpo/adapter

Then make it yours, one piece at a time:

1. `task.py`: the tools are typed Python functions; their docstrings are what the model reads. Each
   episode has its own process, so none sees what another one writes.
2. `demonstrate.py`: the scripted teacher. In its place any model that calls tools can write the
   traces: `--teacher local:NAME` or `--teacher http://127.0.0.1:8080/v1`.
3. `train.jsonl`, `val.jsonl`, `test.jsonl`: documents with `"gold"`; no company is in two of them.
4. `register.db`: any database, any search.
"""


def folder_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a task folder that will be called `folder`: content by name."""
    companies = draw_companies(COMPANIES)
    with TemporaryDirectory() as made:
        write_register(path := Path(made) / "register.db", companies)
        contents = {"register.db": path.read_bytes()}
    for module in (task, demonstrate):
        source = Path(str(module.__file__))
        contents[source.name] = source.read_bytes()
    for split, count in SIZES.items():
        rows = (each.document for each in generate_receipts(companies, split, count))
        lines = [orjson.dumps(documents.as_row(row)) for row in rows]
        contents[f"{split}.jsonl"] = b"\n".join([*lines, b""])
    for name, keys in RECIPES.items():
        contents[f"{name}.toml"] = with_keys(packaged(name), keys).encode()
    text = README.format(folder=folder, companies=COMPANIES)
    return {**contents, "README.md": text.encode()}
