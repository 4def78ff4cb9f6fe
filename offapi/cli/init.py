"""`offapi init`: a new task folder that runs as written,
to be changed piece by piece into the user's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from offapi.cli.output import Output, options
from offapi.errors import ConfigError
from offapi.files import atomic

if TYPE_CHECKING:
    from offapi.demo.facts import Split

SIZES: dict[Split, int] = {
    "train": 48,
    "val": 16,
    "test": 24,
}  # documents; enough to see it work in minutes
TRACES = 72
RECIPES = ("distill.toml", "sft.toml", "filtered_sft.toml", "grpo.toml", "compare.toml")
WRONG_EVERY = 6  # of the made-up traces, one has a total that is not in its document
DOCSTRING = '''"""What to extract, how answers are checked, and a few worked examples. Change it into your task.

The demo's task, as a start: vendor, date and total of an invoice.
"""'''
README = """\
# A task for offapi

It runs as it is:

    offapi models add demo          # once
    offapi train {folder}/distill.toml
    offapi eval --task {folder}/task.py --data {folder}/val.jsonl --adapter runs/distill/adapter

Then make it yours, one piece at a time:

1. `task.py`: the instructions, the fields of the answer, the checks, three or four worked examples.
2. `train.jsonl`: your documents, one a line: `{{"id": "1", "document": "..."}}`. What is in it now was generated.
3. `val.jsonl`: 50 or more documents whose answers you have checked yourself, as `"gold": {{...}}`, and that are
   not in `train.jsonl`.
4. `distill.toml`: who labels (`teacher`), and how the student is trained. With a teacher elsewhere, label first:

       offapi label --task {folder}/task.py --data {folder}/train.jsonl \\
         --teacher http://127.0.0.1:8080/v1 --out labels.jsonl

   and set `labels`. `sft.toml` learns the `gold` answers of `train.jsonl` instead: the baseline.
5. `filtered_sft.toml` learns the best of what your agent already did. `traces.jsonl` is made up, with a mistake in
   one of six; bring your own logs:

       offapi traces import openai-ft your-log.jsonl --out {folder}/traces.jsonl
       offapi grade --task {folder}/task.py --traces {folder}/traces.jsonl --against {folder}/val.jsonl

6. `grpo.toml` goes on from a student with documents alone: its fresh attempts are scored by the checks of `task.py`.
   Reward what you mean: a check that can be satisfied by something else will be.

       offapi train {folder}/grpo.toml --set adapter="$PWD/runs/distill/adapter"

7. `compare.toml` runs all of them on one test set, `test.jsonl`, and tells which pays. Ask first what it takes:

       offapi compare {folder}/compare.toml --dry-run
"""


@click.command(short_help="Write a new task folder that runs as written.")
@click.argument("folder", type=click.Path(path_type=Path))
@options
def command(output: Output, *, folder: Path) -> None:
    """Write a new task folder that runs as written: task.py, documents, recipes and a README.

    \b
    offapi init my-task
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        step = "Name a new folder; nothing was changed."
        raise ConfigError(
            "there is something already, and init overwrites nothing.",
            where=str(folder),
            next_step=step,
        )
    contents = task_folder_files(folder)
    write_folder(folder, contents)
    output.say(f"Wrote {', '.join(contents)} into {folder}.")
    output.say(
        f"Next: offapi train {folder / 'distill.toml'}   (once before: offapi models add demo)"
    )
    output.result({"folder": str(folder), "files": list(contents)})


def task_folder_files(folder: Path) -> dict[str, bytes]:
    """Name -> content of a task folder that will be called `folder`."""
    from importlib import resources

    from offapi.data import documents
    from offapi.demo import generate, task

    _, _, code = Path(task.__file__).read_text(encoding="utf-8").split('"""', 2)
    found = {"task.py": f"{DOCSTRING}{code}".encode()}
    for split, count in SIZES.items():
        rows = (documents.as_row(document) for document in generate.generate(split, count))
        found[f"{split}.jsonl"] = b"".join(
            orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows
        )
    found["traces.jsonl"] = made_up_traces()
    configs = resources.files("offapi.recipes") / "configs"
    found |= {name: (configs / name).read_bytes() for name in RECIPES}
    return {**found, "README.md": README.format(folder=folder).encode()}


def made_up_traces() -> bytes:
    """Made-up traces of an agent that mostly does the demo's task well, as JSONL."""
    from offapi.data.traces import Trace, as_row
    from offapi.demo import generate
    from offapi.demo.task import task

    lines = []
    for i, document in enumerate(generate.generate("train", TRACES, seed=1)):
        gold = dict(document.gold or {})
        if i % WRONG_EVERY == 0:
            gold["total"] = round(gold["total"] + 1.07, 2)
        answer = {"role": "assistant", "content": task.answer_text(gold)}
        trace = Trace(document.id, (*task.messages(document.text), answer))
        lines.append(orjson.dumps(as_row(trace), option=orjson.OPT_APPEND_NEWLINE))
    return b"".join(lines)


def write_folder(folder: Path, contents: dict[str, bytes]) -> None:
    """Put `contents` into the new `folder`: all of them, or nothing."""
    path = folder.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.new_folder(path, mode=0o777) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
