"""What `offapi demo --full` adds: a comparison of the recipes, its cost, and a report.

Left out: filtered_sft, since the demo has no traces.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import orjson

from offapi.cost import from_run
from offapi.cost.estimate import Estimate, estimate
from offapi.cost.inputs import Layer, resolve_inputs
from offapi.files import atomic
from offapi.report.write import write_page
from offapi.training.run import Run

RECIPE, COMPARISON = "compare.toml", "compare"
PRICES = "prices-2026-11.toml"
KEYS = """\
# The recipes on the demo's task: hand labels, the demo's teacher,
# and GRPO from the student of the hand labels.
recipe = "compare"
name = "{name}"
out = {out}
task = "task.py"
documents = "train.jsonl"
test = "test.jsonl"
val = "val.jsonl"
labels = "labels.jsonl"
sft = {{ epochs = 1.0, lr = 1e-3 }}
distill = {{ epochs = 1.0, lr = 1e-3 }}
grpo = {{ start = "sft", epochs = 0.5, lr = 4e-4, warmup_steps = 4, eval_every = 10 }}
"""


def write_recipe(run: Path) -> Path:
    """Write the comparison's file into the demo's run folder."""
    text = KEYS.format(name=COMPARISON, out=orjson.dumps(str(run)).decode())
    atomic.write_file(run / RECIPE, text.encode())
    return run / RECIPE


def estimate_cost(run: Path) -> Estimate:
    """Compare the student's cost with an API's, at the example prices; keep it as cost.json."""
    with_prices = Layer.of_file(Path(str(files("offapi.cost") / PRICES)))
    result = estimate(resolve_inputs([with_prices, from_run.read(Run.open(run))]))
    atomic.write_file(
        run / COMPARISON / "cost.json",
        orjson.dumps(result.as_dict(), option=orjson.OPT_SERIALIZE_NUMPY),
    )
    return result


def write_report(run: Path) -> Path:
    """Write the report of the comparison and its cost."""
    path = run / COMPARISON / "report.html"
    write_page([run / COMPARISON], path)
    return path
