"""`offapi predict`: documents to answers, with each field's place and how sure it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offapi.cli.backend_option import backend_option, dtype_option
from offapi.cli.output import Output, options
from offapi.cli.quantize_option import quantize_option
from offapi.cli.template_option import template_option
from offapi.errors import ConfigError

if TYPE_CHECKING:
    from offapi.predict.files import PredictFiles
    from offapi.predict.predictor import AskedHow, Predictor

FILE = click.Path(path_type=Path)
LEVELS = ("off", "schema", "source", "register")


@click.command(short_help="Answer documents with a run or a model, field by field.")
@click.argument("source", metavar="RUN|MODEL")
@click.argument("paths", nargs=-1, required=True, type=FILE, metavar="DOCS...")
@click.option("--task", "task_file", type=FILE, help="Task file (Python).  [default: the run's]")
@click.option(
    "--out",
    type=FILE,
    required=True,
    help="File for the answers (JSONL). The same command again resumes it.",
)
@click.option(
    "--adapter",
    type=FILE,
    help="Adapter folder on top of MODEL. A run answers with its own.",
)
@click.option(
    "--constrain",
    type=click.Choice(LEVELS),
    help="How answers are bound: off, by the schema, by the document (source), by lists of names too"
    " (register).  [default: as the run was calibrated, else the strongest that the task declares]",
)
@click.option(
    "--candidates",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    show_default=True,
    help="Bound readings of each document, of which the likeliest is answered.",
)
@click.option(
    "--signals",
    is_flag=True,
    help="Also write what confidences are computed from, for each field.",
)
@click.option("--csv", "table", type=FILE, help="File for a table too: one row a document (CSV).")
@click.option(
    "--shard",
    metavar="I/N",
    help="Answer only part I of N, chosen by a hash of the id, into a file of its own.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Answer only the first N documents.  [default: all]",
)
@template_option
@backend_option()
@dtype_option
@quantize_option
@options
def command(output: Output, *, source: str, paths: tuple[Path, ...], **values: Any) -> None:
    """Answer documents with a trained run, or with a model, and write one JSON object for each.

    Use it when a student is good enough to work. RUN is a run's folder, which has base model,
    adapter and task; MODEL is a local model's name or folder, and needs --task. DOCS are JSONL
    files or folders of .txt and .md files, whose ids are unique over all of them.

    Each answer has, for every field, the value, the place in the document where it stands, and, in
    a calibrated run, how sure it is and whether it is accepted (`offapi calibrate`). Answers are
    kept as they come; run the same command again to resume.

    \b
    Examples:
      offapi predict runs/distill docs.jsonl --out answers.jsonl
      offapi predict runs/distill inbox/ more.jsonl --out answers.jsonl --csv answers.csv
      offapi predict demo docs.jsonl --task task.py --out answers.jsonl --limit 10
    """
    from offapi.data.documents import say_left_out
    from offapi.predict.files import predict_files

    files = _files(paths, values)
    predictor = _predictor(source, values, output)
    with predictor:
        asked = predictor.asked(values["constrain"], values["candidates"])
        _say_how(predictor, asked, values["constrain"] is not None, output)
        if asked.no_promise:
            output.say(f"No confidence: {asked.no_promise}")
        if asked.promise is not None and (gone := asked.promise.withdrawn):
            why = gone.why.rstrip(".")
            output.say(f"The promise was withdrawn on {gone.when}: {why}. Nothing is accepted.")
        say_left_out(output, *paths)
        totals = predict_files(predictor, asked, files, output)
    for line in totals.lines():
        output.say(line)
    if files.table is not None:
        output.say(f"Table: {files.table}")
    output.result(totals.as_dict())


def _files(paths: tuple[Path, ...], values: dict[str, Any]) -> PredictFiles:
    """Return what is read and written. Raise ConfigError where a file is both."""
    from offapi.predict.files import PredictFiles
    from offapi.predict.shard import Shard

    shard = Shard.parse(values["shard"]) if values["shard"] else Shard()
    out, table = values["out"], values["table"]
    written = [("--out", shard.out(out))]
    if table is not None:
        table = shard.out(table)
        written.append(("--csv", table))
    for option, path in written:
        if any(each.exists() and path.exists() and each.samefile(path) for each in paths):
            what = "this command also reads that file."
            raise ConfigError(what, where=f"{option} {path}", next_step=f"Name another {option}.")
    if table is not None and table.absolute() == shard.out(out).absolute():
        raise ConfigError("--csv and --out are one file.", next_step="Name two files.")
    return PredictFiles(
        paths, out, table, shard, values["limit"], values["candidates"], values["signals"]
    )


def _predictor(source: str, values: dict[str, Any], output: Output) -> Predictor:
    """Return what answers. Raise ConfigError without a task, and what cannot be used."""
    from offapi.backend import default_backend
    from offapi.predict.answering_model import AnsweringModel
    from offapi.predict.predictor import Predictor
    from offapi.task import load_task

    answering = AnsweringModel.of(source, values["adapter"], values["bits"])
    task_file = values["task_file"] or answering.task_file
    if task_file is None:
        raise click.UsageError("Missing option '--task': a model alone has none.")
    task = load_task(task_file)
    for doubt in answering.doubts(task_file):
        output.say(doubt)
    backend = values["backend"] or default_backend()
    return Predictor(
        answering, task, task_file, backend, values["dtype"], output.say, values["template"]
    )


def _say_how(predictor: Predictor, asked: AskedHow, chosen: bool, output: Output) -> None:
    from offapi.predict.level import say_level

    model = predictor.answering
    adapter = f" with {model.adapter}" if model.adapter else ", no adapter"
    output.say(f"{model.model.name}{adapter}, on {predictor.backend_name}.")
    calibrated = asked.promise is not None or asked.no_promise
    why = "as the run was calibrated" if calibrated else "the strongest that the task declares"
    output.say(say_level(asked.level, "" if chosen else why))
