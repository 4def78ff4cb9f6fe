"""Write the table of families in docs/models.md: python scripts/families_table.py

Each tiny model of tests/support/families.py is added, measured on both backends, trained for a few
steps, and its adapter is read by PEFT. Figures are the largest differences (nats) from
transformers' eager forward in float32. It needs both backends.
"""

# ruff: noqa: E402 -- the folders of tests must be on the path first

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / part) for part in ("support", "conformance")]

import families
import numpy as np
import test_families as tried

from offapi import backend as backends
from offapi.implementations import MeasuredBackend
from offapi.model_spec import ModelSpec
from offapi.models import agreement, store

PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- families -->\n", "<!-- end of families -->\n"
NAMES = {"torch": "torch", "mlx": "MLX"}
HEAD = """\
| Family | `model_type` | torch | MLX | Adapter in PEFT, from torch and MLX |
|---|---|---|---|---|
"""


def measured_cell(one: MeasuredBackend) -> str:
    """Return the implementation and the difference, or why there is none."""
    if not one.implementation:
        return f"not: {one.why}"
    return f"{one.implementation}, {one.difference:.0e}"


def adapter_difference(model: store.Model, name: str, family: str, folder: Path) -> str:
    """Return how far PEFT is from backend `name` with an adapter that it trained."""
    shape = tried.SHAPE
    backend = backends.load(name, ModelSpec(model.path, lora=shape, device="cpu"))
    try:
        tried.learn(backend)
        ours = backend.score(tried.ROWS)
        adapter = tried.write_adapter(folder, backend, shape)
    finally:
        backend.close()
    theirs = tried.peft_scores(model.path, adapter)
    apart = [np.abs(one - other).max() for one, other in zip(ours, theirs, strict=True)]
    return f"{max(apart):.0e}"


def rows(folder: Path) -> Iterator[str]:
    """Yield a line of the table for each family."""
    for family in families.FAMILIES:
        model = store.add(families.write(family, folder / family))
        outcome = agreement.establish_parity(model)
        cells = [measured_cell(outcome.measured[name]) for name in NAMES]
        usable = [name for name in NAMES if outcome.measured[name].implementation]
        peft = [
            adapter_difference(model, name, family, folder / f"{family}-{name}") for name in usable
        ]
        kind = families.config_of(family)["model_type"]
        yield f"| {family} | `{kind}` | {cells[0]} | {cells[1]} | {', '.join(peft) or '-'} |\n"


def main() -> None:
    """Rewrite the table in place."""
    with TemporaryDirectory() as made:
        os.environ["OFFAPI_HOME"] = str(Path(made) / "home")
        table = HEAD + "".join(rows(Path(made)))
    page = PAGE.read_text("utf-8")
    whole = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    PAGE.write_text(whole.sub(lambda _: f"{BEGIN}\n{table}\n{END}", page), "utf-8")


if __name__ == "__main__":
    main()
