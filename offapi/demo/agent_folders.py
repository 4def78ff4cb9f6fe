"""The files of task folders of the examples with tools: `vendor-agent` and `long-document`.

Left out: the demonstrations, which `offapi label` writes with the folder's own tools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import orjson

from offapi.data import documents
from offapi.data.documents import Document
from offapi.demo import long_document, vendor_agent
from offapi.demo.facts import Split
from offapi.demo.long_document.documents import generate_agreements
from offapi.demo.vendor_agent.companies import draw_companies
from offapi.demo.vendor_agent.documents import generate_receipts
from offapi.demo.vendor_agent.register import write_register
from offapi.init.recipe_files import Keys, packaged, with_keys

COMPANIES = 5000
SIZES: Mapping[Split, int] = {"train": 200, "val": 16, "test": 40}
RECIPES: Mapping[str, Keys] = {
    "filtered_sft": {
        "traces": "demonstrations.jsonl",
        "prompt": "trace",
        "control": False,
        "max_tokens": 4096,
    },
    "grpo": {"adapter": "runs/filtered-sft/adapter", "max_tokens": 4096, "eval_every": 10},
}
VENDOR_README = """\
# An agent that looks names up

Receipts print a company's name shortened or misread. `register.db` holds {companies:,} companies,
and the model may search it: `search_vendors(query)`, `get_vendor(id)`. The answer carries the
registered name.

{commands}
Then make it yours, one piece at a time:

1. `task.py`: the tools are typed Python functions; their docstrings are what the model reads. Each
   episode has its own process, so none sees what another one writes.
2. `demonstrate.py`: the scripted teacher. In its place any model that calls tools can write the
   traces: `--teacher local:NAME` or `--teacher http://127.0.0.1:8080/v1`.
3. `train.jsonl`, `val.jsonl`, `test.jsonl`: documents with `"gold"`; no company is in two of them.
4. `register.db`: any database, any search.
"""
LONG_README = """\
# An agent that reads a long document in parts

An agreement of 45 pages names the notice period and the cap of liability in one place. The prompt
shows its first line alone; the model may search it with `find(text)`, or read on with
`next_page()`.

{commands}
Then make it yours: `task.py` has the tools and `opening`, which says what the prompt shows of a
document; `demonstrate.py` is the scripted teacher.
"""
COMMANDS = """\
    offapi models add demo                    # once
    offapi label --task {folder}/task.py --data {folder}/train.jsonl \\
      --teacher script:{folder}/demonstrate.py --out {folder}/demonstrations.jsonl
    offapi train {folder}/filtered_sft.toml   # learns the demonstrations
    offapi train {folder}/grpo.toml           # learns from its own attempts
    offapi eval --task {folder}/task.py --data {folder}/test.jsonl --adapter runs/grpo/adapter
"""


def vendor_agent_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a `vendor-agent` folder that will be called `folder`, by name."""
    companies = draw_companies(COMPANIES)
    with TemporaryDirectory() as made:
        write_register(path := Path(made) / "register.db", companies)
        register = path.read_bytes()

    def rows(split: Split, count: int) -> Sequence[Document]:
        return [each.document for each in generate_receipts(companies, split, count)]

    text = VENDOR_README.format(
        folder=folder, companies=COMPANIES, commands=COMMANDS.format(folder=folder)
    )
    return {"register.db": register, **_common(vendor_agent, rows), "README.md": text.encode()}


def long_document_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a `long-document` folder that will be called `folder`, by name."""
    text = LONG_README.format(commands=COMMANDS.format(folder=folder))
    return {**_common(long_document, generate_agreements), "README.md": text.encode()}


def _common(
    example: ModuleType, rows: Callable[[Split, int], Sequence[Document]]
) -> dict[str, bytes]:
    """Return task, script, documents and recipes."""
    home = Path(str(example.__file__)).parent
    contents = {name: (home / name).read_bytes() for name in ("task.py", "demonstrate.py")}
    for split, count in SIZES.items():
        lines = [orjson.dumps(documents.as_row(row)) for row in rows(split, count)]
        contents[f"{split}.jsonl"] = b"\n".join([*lines, b""])
    for name, keys in RECIPES.items():
        contents[f"{name}.toml"] = with_keys(packaged(name), keys).encode()
    return contents
