"""Which supervised recipe is best on real receipts? Compare them with `offapi compare`.

They learn from people's answers, or a frontier model's. DATA is a folder with train.jsonl
(documents with "gold" and "recorded_label"), unlabelled.jsonl (documents with "recorded_label") and
val.jsonl (with "gold"), which is the test set here.

    python scripts/bench/receipts_compare.py DATA OUT --dry-run
    python scripts/bench/receipts_compare.py DATA OUT

Hand labels and the teacher's answers are those of at most eight receipts per shop; graded SFT
chooses from all recorded answers. `receipts_grpo.py` continues from the result.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from offapi.data import documents
from offapi.data.documents import Document

TASK = Path(__file__).with_name("receipts_task.py").absolute()
KEYS = """\
recipe = "compare"
name = "receipts-{backend}"
out = "{out}"
task = "{task}"
documents = "{out}/documents.jsonl"
traces = "{out}/recorded.jsonl"
test = "{out}/test.jsonl"
teacher = "recorded"
recipes = ["sft", "distill", "filtered_sft"]
max_tokens = 1536
sft = {{ epochs = 2.0, lr = 5e-4, batch_size = 4, on_long = "drop" }}
distill = {{ epochs = 2.0, lr = 5e-4, batch_size = 4, on_long = "drop" }}
filtered_sft = {{ epochs = 1.0, lr = 5e-4, batch_size = 4, on_long = "drop", \
keep = {{ cap = 4, cap_by = "vendor" }} }}
"""


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.argument("out_folder", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--backend", default="torch", show_default=True, help="Backend to train with.")
@click.option(
    "--cap", default=8, show_default=True, help="Most receipts of one shop that keep an answer."
)
@click.option("--dry-run", is_flag=True, help="Only estimate time and memory.")
@click.option("--set", "overrides", multiple=True, help="Key of the comparison, as key=value.")
def main(
    data: Path, out_folder: Path, backend: str, cap: int, dry_run: bool, overrides: tuple[str, ...]
) -> None:
    """Write what the comparison reads into OUT, and run it; run it again to resume."""
    out = out_folder.absolute()
    out.mkdir(parents=True, exist_ok=True)
    labelled, more = documents.read(data / "train.jsonl"), documents.read(data / "unlabelled.jsonl")
    capped = cap_shops(labelled, cap)
    unlabelled = [replace(row, recorded_label=None) for row in more[: len(capped)]]
    documents.write(out / "documents.jsonl", [*capped, *unlabelled])
    documents.write(
        out / "recorded.jsonl", [row for row in [*labelled, *more] if row.recorded_label]
    )
    documents.write(out / "test.jsonl", documents.read(data / "val.jsonl"))
    config_path = out / "compare.toml"
    config_path.write_text(KEYS.format(backend=backend, out=out, task=TASK))
    words = [
        str(Path(sys.executable).with_name("offapi")),
        "compare",
        str(config_path),
        "--backend",
        backend,
    ]
    if dry_run:
        words.append("--dry-run")
    for override in overrides:
        words += ["--set", override]
    sys.exit(subprocess.run(words, check=False).returncode)


def cap_shops(rows: Sequence[Document], cap: int) -> list[Document]:
    """Return the first `cap` rows of each shop, by its true name."""
    seen: Counter[str] = Counter()
    kept = []
    for row in rows:
        shop = str(documents.fields_of(row.gold)["vendor"]).casefold()
        seen[shop] += 1
        if seen[shop] <= cap:
            kept.append(row)
    return kept


if __name__ == "__main__":
    main()
