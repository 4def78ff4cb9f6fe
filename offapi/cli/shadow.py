"""`offapi shadow`: a student on recorded requests, against the answers that were recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offapi.cli.backend_option import backend_option, dtype_option
from offapi.cli.output import Output, options
from offapi.errors import ConfigError

if TYPE_CHECKING:
    from offapi.predict.predictor import Predictor
    from offapi.shadow.run import ShadowResult, ShadowSettings

FILE = click.Path(path_type=Path)
LEVELS = ("off", "schema", "source", "register")


@click.command(short_help="Compare a student with the recorded answers of a frontier model.")
@click.argument("source", metavar="RUN|MODEL")
@click.option(
    "--traces",
    type=FILE,
    required=True,
    help="Recorded requests with their answers: traces, or documents with recorded_label (JSONL).",
)
@click.option(
    "--gold",
    type=FILE,
    help="Documents with gold for some of the requests, found by id or text (JSONL). Without it, the"
    " gold in --traces is used, if there is any.",
)
@click.option("--task", "task_file", type=FILE, help="Task file (Python).  [default: the run's]")
@click.option(
    "--out",
    type=FILE,
    default="shadow.jsonl",
    show_default=True,
    help="File for the pairs of answers (JSONL). The student's answers are kept in"
    " OUT.answers.jsonl; the same command again asks only what is missing there.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    metavar="FRACTION",
    help="Largest drop in accuracy you would accept when replacing the frontier; 0.05 is 5 percentage"
    " points.",
)
@click.option(
    "--quality",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="FRACTION",
    help="Quality that student and frontier should reach together: find the share to ask for it.",
)
@click.option("--adapter", type=FILE, help="Adapter folder on top of MODEL. A run has its own.")
@click.option(
    "--constrain",
    type=click.Choice(LEVELS),
    help="How answers are bound, as for `offapi predict`.  [default: the strongest that the task"
    " declares, or the calibration's]",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Use only the first N requests.  [default: all]",
)
@backend_option()
@dtype_option
@options
def command(output: Output, *, source: str, task_file: Path | None, **values: Any) -> None:
    """Send recorded requests through a student, and compare it with the recorded answers.

    Use it before you replace a frontier model. Both answers to a request are graded alike. With
    gold it reports whether the student may replace the frontier, or that there are too few
    documents to say. It also estimates what share of requests must still go to the frontier, those
    of which the student is least certain. Without gold it reports only how often both agree.

    Nothing is sent anywhere: the frontier's answers are those that were recorded.

    \b
    Examples:
      offapi shadow runs/distill --traces log.jsonl --gold reviewed.jsonl
      offapi shadow runs/distill --traces log.jsonl --gold reviewed.jsonl --quality 0.95
      offapi shadow demo --task task.py --traces recorded.jsonl --limit 100
    """
    from offapi.shadow.requests import read_requests
    from offapi.shadow.run import ShadowSettings, shadow

    settings = ShadowSettings(
        values["traces"], values["out"], values["margin"], values["quality"], values["limit"]
    )
    _check_paths(settings, (values["gold"], task_file))
    with _predictor(source, task_file, values, output) as predictor:
        assert predictor.task is not None
        requests = read_requests(settings.traces, values["gold"], predictor.task, settings.limit)
        asked = predictor.asked(values["constrain"])
        if asked.no_promise:
            output.say(f"No confidence: {asked.no_promise}")
        result = shadow(predictor, asked, requests, settings, output)
    _show(result, settings, output)


def _predictor(
    source: str, task_file: Path | None, values: dict[str, Any], output: Output
) -> Predictor:
    """Return what answers. Raise UsageError without a task, and what cannot be used."""
    from offapi.backend import default_backend
    from offapi.predict.answering_model import AnsweringModel
    from offapi.predict.predictor import Predictor
    from offapi.task import load_task

    answering = AnsweringModel.of(source, values["adapter"])
    file = task_file or answering.task_file
    if file is None:
        raise click.UsageError("Missing option '--task': a model alone has none.")
    for doubt in answering.doubts(file):
        output.say(doubt)
    backend = values["backend"] or default_backend()
    return Predictor(answering, load_task(file), file, backend, values["dtype"], output.say)


def _check_paths(settings: ShadowSettings, others: tuple[Path | None, ...]) -> None:
    """Raise ConfigError where an output is also an input, or its folder does not exist."""
    out = settings.out
    for path in (settings.traces, *others):
        if path and path.exists() and out.exists() and out.samefile(path):
            what = "this command also reads that file, so writing to it would destroy the input."
            raise ConfigError(what, where=f"--out {out}", next_step="Name another --out.")
    if not out.absolute().parent.is_dir():
        step = "Create it, or name another."
        raise ConfigError("the folder does not exist.", where=f"--out {out}", next_step=step)


def _show(result: ShadowResult, settings: ShadowSettings, output: Output) -> None:
    from offapi.evaluation.test_set import scoring_sentence
    from offapi.shadow import text

    report = result.report
    output.table(text.TABLE_HEAD, text.table(report))
    if report.points:
        output.table(text.CURVE_HEAD, text.curve(report))
    for line in text.lines(report):
        output.say(line)
    if result.times:
        output.say(scoring_sentence(result.times))
    output.say(f"Pairs: {settings.out}")
    scored = {} if result.times is None else {"scored": result.times}
    output.result({**report.as_dict(), **scored, "pairs": str(settings.out)})
