"""Write the table of families in docs/models.md: python scripts/families_table.py

Each tiny model of tests/support/families.py is added, measured on both backends, trained for a few
steps, and its adapter is read by PEFT, and exported for mlx-lm and read by that. Figures are the
largest differences (nats): of a backend from transformers' eager forward in float32, of PEFT and
mlx-lm from the backend that trained the adapter. It needs both backends.
"""

# ruff: noqa: E402 -- the folders of tests must be on the path first

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / part) for part in ("support", "conformance")]

import families
import numpy as np
import test_families as tried

from offapi import backend as backends
from offapi.episodes import Floats
from offapi.implementations import MeasuredBackend
from offapi.model_spec import ModelSpec
from offapi.models import agreement, store

PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- families -->\n", "<!-- end of families -->\n"
NAMES = {"torch": "torch", "mlx": "MLX"}
HEAD = """\
| Family | `model_type` | torch | MLX | Adapter in PEFT, from torch and MLX | In mlx-lm |
|---|---|---|---|---|---|
"""


def measured_cell(one: MeasuredBackend) -> str:
    """Return the implementation and the difference, or why there is none."""
    if not one.implementation:
        return f"not: {one.why}"
    return f"{one.implementation}, {one.difference:.0e}"


def adapter_differences(model: store.Model, name: str, folder: Path) -> tuple[str, str]:
    """Return how far PEFT and mlx-lm are from backend `name` with an adapter that it trained."""
    shape = tried.SHAPE
    backend = backends.load(name, ModelSpec(model.path, lora=shape, device="cpu"))
    try:
        tried.learn(backend)
        ours = backend.score(tried.ROWS)
        adapter = tried.write_adapter(folder, backend, shape)
    finally:
        backend.close()
    peft = largest(ours, tried.peft_scores(model.path, adapter))
    try:
        return peft, largest(ours, tried.mlx_lm_scores(model.path, adapter))
    except Exception as error:  # whatever mlx-lm raises, which is what the table is to say
        print(f"{model.name}, {name}: {error!r}", file=sys.stderr)
        return peft, "not"


def largest(ours: Sequence[Floats], theirs: Sequence[Floats]) -> str:
    """Return the largest difference, as a cell says it."""
    apart = [np.abs(one - other).max() for one, other in zip(ours, theirs, strict=True)]
    return f"{max(apart):.0e}"


def rows(folder: Path) -> Iterator[str]:
    """Yield a line of the table for each family."""
    for family in families.FAMILIES:
        model = store.add(families.write(family, folder / family))
        outcome = agreement.establish_parity(model)
        cells = [measured_cell(outcome.measured[name]) for name in NAMES]
        usable = [name for name in NAMES if outcome.measured[name].implementation]
        read = [adapter_differences(model, name, folder / f"{family}-{name}") for name in usable]
        cells += [", ".join(each) for each in zip(*read, strict=True)] or ["-", "-"]
        kind = families.config_of(family)["model_type"]
        yield f"| {family} | `{kind}` | {' | '.join(cells)} |\n"


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
