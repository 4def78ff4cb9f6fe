"""`offapi init`: a task folder that runs as it is, to change piece by piece into one's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from offapi.cli.output import Output, options
from offapi.errors import ConfigError
from offapi.files import atomic

if TYPE_CHECKING:
    from offapi.demo.facts import Split

# Documents of each split: enough to see it work in minutes.
SIZES: dict[Split, int] = {"train": 48, "val": 16, "test": 24}
TRACES = 72
RECIPES = ("distill.toml", "sft.toml", "filtered_sft.toml", "grpo.toml", "compare.toml")
EXAMPLES = ("invoices", "vendor-agent", "long-document")
WRONG_EVERY = 6  # one made-up trace in six has a total that is not in its document
DOCSTRING = '''"""What to extract, how answers are checked, and a few worked examples. Make it your task.

As a start it is the task of the demo: vendor, date and total of an invoice.
"""'''
README = """\
# A task for offapi

It runs as it is:

    offapi models add demo          # once
    offapi train {folder}/distill.toml
    offapi eval --task {folder}/task.py --data {folder}/val.jsonl --adapter runs/distill/adapter

Then make it yours, one piece at a time:

1. `task.py`: the instructions, the fields of the answer, the checks, three or four worked examples.
2. `train.jsonl`: your documents, one per line: `{{"id": "1", "document": "..."}}`. The present ones are generated.
3. `val.jsonl`: 50 or more documents that are not in `train.jsonl`, with answers that you checked yourself, as
   `"gold": {{...}}`.
4. `distill.toml`: which model labels (`teacher`), and how the student is trained. To use a teacher behind an HTTP
   endpoint, label first:

       offapi label --task {folder}/task.py --data {folder}/train.jsonl \\
         --teacher http://127.0.0.1:8080/v1 --out labels.jsonl

   and set `labels` in `distill.toml`. `sft.toml` is the baseline: it learns the `gold` answers of `train.jsonl`.
5. `filtered_sft.toml` learns the best of your agent's logged answers. The present `traces.jsonl` is made up, with a
   mistake in one row of six. Import your own logs:

       offapi traces import openai-ft your-log.jsonl --out {folder}/traces.jsonl
       offapi grade --task {folder}/task.py --traces {folder}/traces.jsonl --against {folder}/val.jsonl

6. `grpo.toml` continues from a trained student and needs documents alone: the checks of `task.py` score the student's
   own attempts. Reward what you mean: if a check can be passed by a wrong answer, the student will learn that answer.

       offapi train {folder}/grpo.toml --set adapter="$PWD/runs/distill/adapter"

7. `compare.toml` runs all of them, scores them on one test set, `test.jsonl`, and reports which pays. First estimate
   the time it takes:

       offapi compare {folder}/compare.toml --dry-run
"""


@click.command(short_help="Create a task folder that runs as it is, from your own rows too.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--example",
    type=click.Choice(EXAMPLES),
    help="Which example to copy: invoices, answered at once; vendor-agent, an agent that searches a"
    " register; long-document, one that reads in parts.  [default: the one that FOLDER is called after, or"
    " else invoices]",
)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Your own rows: logged chats (as `offapi traces import` reads them, OpenAI's fine-tuning files"
    " too), documents (JSONL, or a folder of text files), or a table (CSV).  [default: generated invoices]",
)
@click.option(
    "--text",
    metavar="COLUMN",
    help="With a table: the column that is read.  [default: by its name, or the longest texts]",
)
@click.option(
    "--answer",
    "answers",
    metavar="COLUMN",
    multiple=True,
    help="With a table: a column of the answer. May be given more than once.  [default: all others]",
)
@options
def command(
    output: Output,
    *,
    folder: Path,
    example: str | None,
    source: Path | None,
    text: str | None,
    answers: tuple[str, ...],
) -> None:
    """Create a task folder that runs as it is: task.py, data, recipes and a README.

    Use it to start a task of your own. FOLDER must be new or empty. With --from, the task is inferred
    from your rows: instructions from their system prompt, the answer's fields from the answers, checks
    by type, worked examples, and rows held out to validate and test on. It says what it inferred, from
    how many rows, and what is uncertain. Without --from, the folder is a copy of the demo's task with
    generated documents; its README says what to replace, one piece at a time. The examples
    vendor-agent and long-document are tasks with tools.

    \b
    Examples:
      offapi init my-task
      offapi init vendor-agent
      offapi init my-task --from export.jsonl
      offapi init my-task --from table.csv --text body --answer category
    """
    if source is None and (text or answers):
        raise click.UsageError("--text and --answer name columns of a table: add --from.")
    if source is not None and example:
        raise click.UsageError("--example and --from exclude each other.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        step = "Name a new folder; nothing was changed."
        what = "the folder is not empty, and init overwrites nothing."
        raise ConfigError(what, where=str(folder), next_step=step)
    if source is not None:
        _from_rows(output, folder, source, text, answers)
        return
    example = example or (folder.name if folder.name in EXAMPLES else EXAMPLES[0])
    contents, following = _example(example, folder)
    write_folder(folder, contents)
    output.say(f"Wrote {', '.join(contents)} into {folder}.")
    output.say(f"Next: {following}")
    output.result({"folder": str(folder), "files": list(contents)})


def _example(name: str, folder: Path) -> tuple[dict[str, bytes], str]:
    """Return the files of an example's folder, and what to do next."""
    from offapi.demo.agent_folders import long_document_files, vendor_agent_files

    if name == "invoices":
        recipe = folder / "distill.toml"
        return (
            task_folder_files(folder),
            f"offapi train {recipe}   (once before it: offapi models add demo)",
        )
    files = vendor_agent_files if name == "vendor-agent" else long_document_files
    return files(folder), f"see {folder / 'README.md'}"


def _from_rows(
    output: Output, folder: Path, path: Path, text: str | None, answers: tuple[str, ...]
) -> None:
    """Write a folder made from the rows in `path`, and report what was inferred."""
    from offapi.init.folder import make_folder
    from offapi.init.source import read_source

    work = folder.absolute().parent / f".{folder.name}-import-{os.getpid()}"
    made = make_folder(folder, read_source(path, text, answers, work, output))
    write_folder(folder, dict(made.files))
    for line in made.summary.lines():
        output.say(line)
    output.say(f"Wrote {', '.join(made.files)} into {folder}. Then:")
    for step in made.summary.next_steps():
        output.say(f"- {step}")
    for command in made.summary.commands():
        output.say(f"  {command}")
    output.result({"folder": str(folder), "files": list(made.files), **made.summary.as_dict()})


def task_folder_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a task folder that will be called `folder`: content by name."""
    from importlib import resources

    from offapi.data import documents
    from offapi.demo import generate, task
    from offapi.init.recipe_files import with_keys

    _, _, code = Path(task.__file__).read_text(encoding="utf-8").split('"""', 2)
    contents = {"task.py": f"{DOCSTRING}{code}".encode()}
    for split, count in SIZES.items():
        rows = (documents.as_row(document) for document in generate.generate(split, count))
        contents[f"{split}.jsonl"] = b"".join(
            orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows
        )
    contents["traces.jsonl"] = made_up_traces()
    configs = resources.files("offapi.recipes") / "configs"
    contents |= {name: (configs / name).read_bytes() for name in RECIPES}
    comparison = with_keys(
        contents["compare.toml"].decode(), {"traces": "traces.jsonl", "val": "val.jsonl"}
    )
    contents["compare.toml"] = comparison.encode()
    return {**contents, "README.md": README.format(folder=folder).encode()}


def made_up_traces() -> bytes:
    """Return made-up traces of an agent that mostly does the demo's task well, as JSONL."""
    from offapi.data import documents
    from offapi.data.traces import Trace, as_row
    from offapi.demo import generate
    from offapi.demo.task import task

    lines = []
    for i, document in enumerate(generate.generate("train", TRACES, seed=1)):
        gold = dict(documents.fields_of(document.gold))
        if i % WRONG_EVERY == 0:
            gold["total"] = round(gold["total"] + 1.07, 2)
        answer = {"role": "assistant", "content": task.answer_text(gold)}
        trace = Trace(document.id, (*task.messages(document.text), answer))
        lines.append(orjson.dumps(as_row(trace), option=orjson.OPT_APPEND_NEWLINE))
    return b"".join(lines)


def write_folder(folder: Path, contents: dict[str, bytes]) -> None:
    """Write `contents` into the new `folder`: all of them, or nothing."""
    path = folder.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.new_folder(path, mode=0o777) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
